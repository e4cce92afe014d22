//! The model and the version that a path or a message names.

use std::{convert::Infallible, sync::Arc};

use axum::{
    extract::{FromRequestParts, RawPathParams},
    http::request::Parts,
};

use crate::{
    edge::access::Caller,
    error::ApiError,
    jobs::models::{Choice, Registry, Served},
};

/// What the request names.
pub(super) struct Named(Choice);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let mut choice = Choice { model: Some(String::new()), version: None };
        // A path that cannot be decoded names no model.
        let found = RawPathParams::from_request_parts(parts, state).await.ok();
        for (parameter, value) in found.iter().flatten() {
            match parameter {
                "version" => choice.version = Some(value.to_owned()),
                _ => choice.model = Some(value.to_owned()),
            }
        }
        Ok(Self(choice))
    }
}

impl Named {
    /// What a message names; an empty version is none.
    pub(super) fn of(model: String, version: String) -> Self {
        let version = Some(version).filter(|version| !version.is_empty());
        Self(Choice { model: Some(model), version })
    }

    /// The model, if the caller may use it.
    pub(super) fn model(&self, registry: &Registry, caller: &Caller) -> Result<Arc<Served>, ApiError> {
        let model = registry.of_query(&self.0)?;
        caller.check_model(model.name.as_str())?;
        Ok(model)
    }

    /// What the path names.
    pub(super) fn into_choice(self) -> Choice {
        self.0
    }
}
