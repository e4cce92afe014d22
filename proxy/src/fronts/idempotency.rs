//! The `Idempotency-Key` header.

use axum::http::{HeaderMap, HeaderName};
use serde_json::{Value, json};

use super::openapi::parts;
use crate::{
    error::{ApiError, Mistake},
    http::headers::{self, is_visible_ascii},
    jobs::idempotency::IdempotencyKey,
};

const HEADER: HeaderName = HeaderName::from_static("idempotency-key");
pub(super) const NAME: &str = "Idempotency-Key";
/// Most characters of a key.
const LONGEST: usize = 255;

/// The key of a request, if it has one.
pub(super) fn key(headers: &HeaderMap, owner: Option<&str>) -> Result<Option<IdempotencyKey>, ApiError> {
    let Some(text) = headers::once(headers, &HEADER, NAME)? else { return Ok(None) };
    let text = text.as_bytes();
    if is_visible_ascii(text, LONGEST) {
        Ok(Some(IdempotencyKey::new(text, owner)))
    } else {
        Err(malformed())
    }
}

/// Whether the request has a key.
pub(super) fn is_given(headers: &HeaderMap) -> bool {
    headers.contains_key(HEADER)
}

/// The error of a key that has another form.
pub(super) fn malformed() -> ApiError {
    let detail = format!("must be 1 to {LONGEST} visible ASCII characters");
    ApiError::Invalid(vec![Mistake::in_header(NAME, "format", detail)])
}

/// Describes it for the contract.
pub(super) fn parameter() -> Value {
    let schema = json!({"type": "string", "pattern": format!("^[\\x21-\\x7e]{{1,{LONGEST}}}$")});
    parts::header(&HEADER, "The same key with the same request gives the same job", &schema, "order-4711")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_visible_ascii_of_bounded_length_is_a_key() {
        let given = |text: &str| key(&HeaderMap::from_iter([(HEADER, text.parse().unwrap())]), None);
        assert!(given(&"k".repeat(255)).unwrap().is_some());
        assert!(key(&HeaderMap::new(), None).unwrap().is_none());
        for bad in ["", "a b", &"k".repeat(256)] {
            assert!(matches!(given(bad), Err(ApiError::Invalid(_))), "{bad:?}");
        }
    }
}
