//! Requests whose heads cannot be read. They reach no route, but count against the rate limit, and have a request id.

use std::sync::Arc;

use axum::http::HeaderMap;

use super::{
    rate_limit::RateLimit,
    request_id::{self, REQUEST_ID},
};
use crate::{error::ApiError, http::peer::Peer};

/// Counts the request. Returns the error of the answer, and the headers that belong to it.
pub(crate) fn reject(
    rate_limit: Option<&Arc<RateLimit>>,
    peer: Peer,
    mut error: ApiError,
) -> (ApiError, HeaderMap) {
    let mut headers = HeaderMap::new();
    headers.insert(REQUEST_ID, request_id::choose(&HeaderMap::new()));
    let account = rate_limit.and_then(|limit| limit.account_of_peer(peer));
    if let Some(allowance) = account.map(|account| account.spend()) {
        allowance.add_to(&mut headers);
        error = allowance.excess.map_or(error, ApiError::from);
    }
    (error, headers)
}
