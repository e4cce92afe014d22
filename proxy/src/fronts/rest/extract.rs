//! What handlers take from a request: its caller, the job id of its path, its JSON body, and where it comes from.

use std::{convert::Infallible, sync::Arc};

use axum::{
    body::Body,
    extract::{FromRequestParts, Path},
    http::{HeaderMap, request::Parts},
};
use tepal_shared::{job::JobId, json::Json};

use crate::{
    edge::{access::Caller, request_id},
    error::ApiError,
    http::{
        bodies::Bodies,
        budget::Share,
        headers::{is_declared, traceparent},
        json,
        peer::Peer,
    },
    jobs::{intake::Sender, quota::Payer},
    state::App,
};

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        app.admission.caller(parts)
    }
}

/// The job id of the path; `None` if it is malformed.
pub(crate) struct PathId(Option<JobId>);

impl PathId {
    /// The id.
    pub(crate) fn job_id(&self) -> Result<JobId, ApiError> {
        self.0.ok_or(ApiError::JobNotFound)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for PathId {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let text = Path::<String>::from_request_parts(parts, state).await;
        Ok(Self(text.ok().and_then(|Path(text)| text.parse().ok())))
    }
}

/// Passes the body, which must be JSON, to `read`. Returns what `read` returns, and the memory that the body holds.
pub(crate) async fn json<T: Send + 'static>(
    headers: &HeaderMap,
    body: Body,
    bodies: &Bodies,
    read: impl FnOnce(Json) -> Result<T, ApiError> + Send + 'static,
) -> Result<(T, Option<Share>), ApiError> {
    if !is_declared(headers, &["application/json"])? {
        return Err(ApiError::NotDeclaredJson);
    }
    bodies.read(body, move |bytes, meter| read(json::parse(bytes, meter)?)).await
}

/// Who sends the request, for the records of its jobs.
pub(super) fn sender<'a>(caller: &'a Caller, headers: &'a HeaderMap) -> Sender<'a> {
    Sender {
        owner: caller.owner(),
        key_id: caller.key_id(),
        request_id: request_id::of(headers),
        traceparent: traceparent(headers),
    }
}

/// Who pays for the large jobs of the request: the caller's owner, or the address it comes from.
pub(super) fn payer<'a>(app: &App, caller: &'a Caller, request: &Parts) -> Payer<'a> {
    match caller.owner() {
        Some(owner) => Payer::Owner(owner),
        None => {
            let peer = request.extensions.get::<Peer>();
            Payer::Address(peer.map(|peer| app.trusted_proxies.origin(*peer, &request.headers)))
        }
    }
}
