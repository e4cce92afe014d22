//! Whether a request is admitted: who sends it, whether that client may send another one, and whether it may do what it asks.

use std::sync::Arc;

use axum::{extract::Request, http::request::Parts};
use tracing::debug;

use super::{
    access::{Access, Caller, remove_keys},
    rate_limit::{Account, Allowance, RateLimit},
    request_id,
    rules::PathRules,
};
use crate::{error::ApiError, http::peer::Peer, metrics::Metrics};

/// Decides about requests.
pub(crate) struct Admission {
    /// `None` when everybody may do everything.
    pub(crate) access: Option<Access>,
    /// `None` when addresses are not limited.
    pub(crate) rate_limit: Option<Arc<RateLimit>>,
    pub(crate) metrics: Arc<Metrics>,
}

/// The decision about a request.
#[derive(Debug, Default)]
pub(crate) struct Decision {
    /// What its client has left; `None` when it is not counted.
    pub(crate) allowance: Option<Allowance>,
    /// Where it is counted.
    pub(crate) account: Option<Account>,
    /// Why it is rejected.
    pub(crate) refusal: Option<ApiError>,
    /// Who sends it, if that is known.
    pub(crate) caller: Option<Caller>,
}

impl Admission {
    /// Decides about a request with these rules; `None` when no route has its path. An admitted request carries its
    /// [`Caller`], but no longer its key. Every request counts, also one without a route, except those for open paths:
    /// monitoring must always get its answer.
    pub(super) fn decide(&self, rules: Option<&PathRules>, request: &mut Request) -> Decision {
        if rules.is_some_and(PathRules::is_open) {
            return Decision::default();
        }
        let identified = match &self.access {
            None => Ok(Caller::Anybody),
            Some(access) => access.identify(request.headers()),
        };
        // A wrong key counts with the address, so that nobody tries many.
        let account = self.account_of(identified.as_ref().ok(), request);
        let allowance = account.as_ref().map(Account::spend);
        let refusal = match (rules, &identified) {
            (None, _) => None,
            (Some(rules), Ok(caller)) => {
                rules.scopes(request.method()).iter().find_map(|scope| caller.refusal(*scope))
            }
            (Some(_), Err(refusal)) => Some(*refusal),
        };
        let caller = identified.ok();
        if let Some(refusal) = refusal {
            self.metrics.unauthorized(refusal.reason());
            let (reason, key_id) = (refusal.reason(), caller.as_ref().and_then(Caller::key_id));
            debug!(action = "access_refused", reason, key_id, request_id = request_id::of(request.headers()));
        }
        if self.access.is_some() {
            remove_keys(request.headers_mut());
            if let Some(caller) = &caller {
                request.extensions_mut().insert(caller.clone());
            }
        }
        let excess = allowance.and_then(|allowance| allowance.excess).map(ApiError::from);
        Decision { allowance, account, refusal: excess.or_else(|| refusal.map(ApiError::from)), caller }
    }

    /// The caller of an admitted request. Without a decision about the request it is rejected.
    pub(crate) fn caller(&self, request: &mut Parts) -> Result<Caller, ApiError> {
        match &self.access {
            None => Ok(Caller::Anybody),
            Some(_) => request.extensions.remove().ok_or(ApiError::Unauthorized),
        }
    }

    /// Where an admitted request is counted; `None` when its sender may send any number.
    pub(crate) fn account(&self, caller: &Caller, request: &Request) -> Option<Account> {
        self.account_of(Some(caller), request)
    }

    fn account_of(&self, caller: Option<&Caller>, request: &Request) -> Option<Account> {
        if let Some(Caller::Key(key)) = caller {
            return key.limit.clone().map(Account::Key);
        }
        let peer = request.extensions().get::<Peer>()?;
        Some(self.rate_limit.as_ref()?.account(*peer, request.headers()))
    }
}
