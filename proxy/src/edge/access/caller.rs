//! The caller of a request: who it is, what it may do, and which jobs it sees.

use std::sync::Arc;

use tepal_shared::job::owner::View;

use super::{
    keyring::Key,
    refusal::Refusal,
    scope::{Scope, Scopes},
    visibility::Visibility,
};
use crate::error::ApiError;

/// Who sends a request.
#[derive(Clone, Debug)]
pub(crate) enum Caller {
    /// There are no keys.
    Anybody,
    /// A caller without a key, with these scopes.
    Anonymous(Scopes),
    /// A caller with this key.
    Key(Arc<Key>),
}

impl Caller {
    /// Whether it has `scope`.
    pub(crate) fn may(&self, scope: Scope) -> bool {
        match self {
            Self::Anybody => true,
            Self::Anonymous(scopes) => scopes.allow(scope),
            Self::Key(key) => key.scopes.allow(scope),
        }
    }

    /// Whether it may use this model.
    pub(crate) fn may_use(&self, model: &str) -> bool {
        self.sees().shows_model(model)
    }

    /// The error of a caller that may not use this model.
    pub(crate) fn check_model(&self, model: &str) -> Result<(), ApiError> {
        if self.may_use(model) { Ok(()) } else { Err(ApiError::ModelForbidden) }
    }

    /// Why it lacks `scope`, if it does. A caller without a key is asked for one.
    pub(crate) fn refusal(&self, scope: Scope) -> Option<Refusal> {
        if self.may(scope) {
            return None;
        }
        Some(match self {
            Self::Key(_) => Refusal::InsufficientScope(scope),
            _ => Refusal::MissingKey,
        })
    }

    /// The jobs that it sees.
    pub(crate) fn sees(&self) -> Visibility<'_> {
        let own = self.owner().map_or(View::Unowned, View::Owner);
        Visibility { view: if self.may(Scope::Admin) { View::All } else { own }, models: self.models() }
    }

    /// The models that it may use; `None` = all.
    fn models(&self) -> Option<&[String]> {
        match self {
            Self::Key(key) => key.models.as_deref(),
            _ => None,
        }
    }

    /// The owner of its new jobs.
    pub(crate) fn owner(&self) -> Option<&str> {
        match self {
            Self::Key(key) => Some(&key.owner),
            _ => None,
        }
    }

    /// The name of its key, for logs.
    pub(crate) fn key_id(&self) -> Option<&str> {
        match self {
            Self::Key(key) => Some(&key.id),
            _ => None,
        }
    }
}
