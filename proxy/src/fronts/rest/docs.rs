//! `/docs`: the contract for people, one page that loads nothing from other sites.

use std::sync::LazyLock;

use axum::{
    http::{HeaderMap, HeaderValue, header::CONTENT_SECURITY_POLICY},
    response::Response,
};

use super::openapi::{
    contract::Contract,
    operation::{Operation, text},
};
use crate::http::kept::Kept;

static PAGE: LazyLock<Kept> =
    LazyLock::new(|| Kept::new(include_str!("docs.html"), "text/html; charset=utf-8"));
/// The page needs its own script and style, and reads the contract from this service.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page.
pub(super) async fn page(headers: HeaderMap) -> Response {
    let mut response = PAGE.answer(&headers);
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response
}

/// Describes it for the contract.
pub(super) fn page_operation(_: &mut Contract<'_>) -> Operation {
    text("docs", "This document for people", "text/html", "<html>", vec![])
}
