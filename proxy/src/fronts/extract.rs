//! What handlers take from a request: its caller, the job id of its path, its JSON body, and where it comes from.

use std::{convert::Infallible, sync::Arc};

use axum::{
    body::Body,
    extract::{FromRequestParts, Path},
    http::{HeaderMap, HeaderName, HeaderValue, request::Parts},
};
use tepal_shared::{job::JobId, json::Json, tensor::open_inference::binary};

use crate::{
    edge::{access::Caller, request_id},
    error::{ApiError, Mistake},
    http::{
        bodies::Bodies,
        budget::{Meter, Share},
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

/// The length of the JSON of a body in binary form.
pub(super) const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

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

/// Divides a body in binary form, whose JSON has this length, into its JSON and its raw tensors. Reserves memory for the tensors.
pub(super) fn json_and_raw<'a>(
    length: &HeaderValue,
    body: &'a [u8],
    meter: &mut Meter,
) -> Result<(Json, &'a [u8]), ApiError> {
    let wrong = |detail| ApiError::Invalid(vec![Mistake::in_header(binary::HEADER, "out_of_range", detail)]);
    let (text, raw) = binary::split(length.as_bytes(), body).map_err(wrong)?;
    let value = json::parse(text, meter).map_err(|error| match error {
        ApiError::NotJson(why) => {
            let length = text.len();
            ApiError::NotJson(format!("{why}, in the first {length} bytes, as {} says", binary::HEADER))
        }
        other => other,
    })?;
    pay_for_tensors(meter, raw)?;
    Ok((value, raw))
}

/// Reserves memory for the tensors of these bytes, and for their stored form.
pub(super) fn pay_for_tensors(meter: &mut Meter, raw: &[u8]) -> Result<(), ApiError> {
    let _ = meter.take(2 * raw.len());
    meter.exceeded().map_or(Ok(()), |exceeded| Err(exceeded.into()))
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
