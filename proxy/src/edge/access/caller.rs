//! One caller, from who it is to what it may see.

use std::sync::Arc;

use axum::{extract::FromRequestParts, http::request::Parts};
use tepal_shared::job::owner::View;

use super::{Refusal, Scope, keyring::Key, scope::Scopes};
use crate::{error::ApiError, state::App};

/// Who sends a request.
#[derive(Clone, Debug)]
pub(crate) enum Caller {
    /// Nobody is asked who it is.
    Anybody,
    /// Somebody without a key, who may do this much.
    Anonymous(Scopes),
    /// Who holds this key.
    Key(Arc<Key>),
}

impl Caller {
    /// Whether it may do what needs `scope`.
    pub(crate) fn may(&self, scope: Scope) -> bool {
        match self {
            Self::Anybody => true,
            Self::Anonymous(scopes) => scopes.allow(scope),
            Self::Key(key) => key.scopes.allow(scope),
        }
    }

    /// Why it may not do what needs `scope`, if it may not. A key would help who has none.
    pub(crate) fn refusal(&self, scope: Scope) -> Option<Refusal> {
        if self.may(scope) {
            return None;
        }
        Some(match self {
            Self::Key(_) => Refusal::InsufficientScope(scope),
            _ => Refusal::MissingKey,
        })
    }

    /// Whose jobs it sees.
    pub(crate) fn view(&self) -> View<'_> {
        if self.may(Scope::Admin) {
            return View::All;
        }
        self.owner().map_or(View::Unowned, View::Owner)
    }

    /// Whose its new jobs are.
    pub(crate) fn owner(&self) -> Option<&str> {
        match self {
            Self::Key(key) => Some(&key.owner),
            _ => None,
        }
    }

    /// Its key's name for logs.
    pub(crate) fn key_id(&self) -> Option<&str> {
        match self {
            Self::Key(key) => Some(&key.id),
            _ => None,
        }
    }
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = ApiError;

    /// The caller that was let in. A request that nobody has looked at is refused, should there ever be one.
    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        match &app.access {
            None => Ok(Self::Anybody),
            Some(_) => parts.extensions.remove().ok_or(ApiError::Unauthorized),
        }
    }
}
