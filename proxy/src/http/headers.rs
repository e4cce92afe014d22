//! Reads headers of requests.

use axum::http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONTENT_ENCODING, CONTENT_TYPE},
};
use tepal_shared::content::is_content_type;

use crate::error::ApiError;

/// W3C Trace Context (<https://www.w3.org/TR/trace-context/>).
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// A later version of the standard may have longer values; this much is kept.
pub(crate) const LONGEST_TRACEPARENT: usize = 256;

/// The value of a header that may be given only once. Programs differ in which of several values they use.
pub(crate) fn once<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
    shown: &'static str,
) -> Result<Option<&'a HeaderValue>, ApiError> {
    let mut given = headers.get_all(name).iter();
    let first = given.next();
    if given.next().is_some() { Err(ApiError::RepeatedHeader(shown)) } else { Ok(first) }
}

/// Whether the body is declared as one of these media types, in UTF-8 (RFC 8259, section 8.1) and not compressed.
pub(crate) fn is_declared(headers: &HeaderMap, media_types: &[&str]) -> Result<bool, ApiError> {
    let Some(media_type) = once(headers, &CONTENT_TYPE, "Content-Type")? else { return Ok(false) };
    let is_one = media_types.iter().any(|one| media_type == one)
        || media_type.to_str().is_ok_and(|text| is_media_type(text, media_types));
    Ok(is_one && !is_compressed(headers))
}

/// Whether the body has a content coding.
pub(crate) fn is_compressed(headers: &HeaderMap) -> bool {
    let is_plain = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"identity");
    !headers.get(CONTENT_ENCODING).is_none_or(is_plain)
}

/// A body without a structure of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RawContent {
    /// UTF-8.
    Text,
    /// Any bytes.
    Bytes,
}

/// The content type of the body, if it has one that can be stored and the body is not compressed.
pub(crate) fn content_type(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let content_type = once(headers, &CONTENT_TYPE, "Content-Type")?.and_then(|value| value.to_str().ok());
    Ok(content_type.filter(|text| is_content_type(text) && !is_compressed(headers)))
}

/// The kind of a raw body, if its content type is one of those that any model with an input of BYTES takes: `image/*`, `audio/*`,
/// `application/octet-stream` or `text/plain` in UTF-8.
pub(crate) fn raw_content(text: &str) -> Option<RawContent> {
    if is_media_type(text, &["text/plain"]) {
        Some(RawContent::Text)
    } else {
        let kind = text.split_once('/').map_or("", |(kind, _)| kind);
        let is_media = ["image", "audio"].iter().any(|one| kind.eq_ignore_ascii_case(one));
        (is_media || is_media_type(text, &["application/octet-stream"])).then_some(RawContent::Bytes)
    }
}

fn is_media_type(text: &str, media_types: &[&str]) -> bool {
    let mut parts = text.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    media_types.iter().any(|one| essence.eq_ignore_ascii_case(one))
        && parts.all(|parameter| match parameter.split_once('=') {
            Some((name, value)) if name.eq_ignore_ascii_case("charset") => {
                value.trim_matches('"').eq_ignore_ascii_case("utf-8")
            }
            _ => true,
        })
}

/// Whether `text` is 1 to `most` visible ASCII characters.
pub(crate) fn is_visible_ascii(text: &[u8], most: usize) -> bool {
    (1..=most).contains(&text.len()) && text.iter().all(u8::is_ascii_graphic)
}

/// A header's value as text.
pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// The trace of the request, if the header is well formed. A malformed header must be ignored (Trace Context, section 3.2.2.3).
pub(crate) fn traceparent(headers: &HeaderMap) -> Option<String> {
    text(headers, &TRACEPARENT).filter(|value| is_traceparent(value)).map(str::to_owned)
}

/// `version-traceid-parentid-flags`, lower-case hex of fixed lengths; ids of zeros are invalid. Versions after 00 may
/// have more parts.
pub(crate) fn is_traceparent(value: &str) -> bool {
    let is_hex = |part: &str, length| {
        part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_id = |part: &str, length| is_hex(part, length) && part.bytes().any(|byte| byte != b'0');
    let parts: Vec<&str> = value.split('-').collect();
    match parts[..] {
        [version, trace_id, parent_id, flags, ref rest @ ..] => {
            is_hex(version, 2)
                && version != "ff"
                && is_id(trace_id, 32)
                && is_id(parent_id, 16)
                && is_hex(flags, 2)
                && (rest.is_empty() || version != "00")
                && is_visible_ascii(value.as_bytes(), LONGEST_TRACEPARENT)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_json_is_json() {
        for good in
            ["application/json", "Application/JSON; charset=UTF-8", "application/json;charset=\"utf-8\"; v=1"]
        {
            assert!(is_media_type(good, &["application/json"]), "{good}");
        }
        for bad in [
            "",
            "text/plain",
            "application/json; charset=latin1",
            "application/problem+json",
            "application/jsonp",
        ] {
            assert!(!is_media_type(bad, &["application/json"]), "{bad}");
        }
    }

    #[test]
    fn raw_content_is_text_or_bytes() {
        for bytes in ["image/jpeg", "IMAGE/x-icon; a=b", "audio/wav", "application/octet-stream"] {
            assert_eq!(raw_content(bytes), Some(RawContent::Bytes), "{bytes}");
        }
        for text in ["text/plain", "Text/Plain; charset=\"UTF-8\""] {
            assert_eq!(raw_content(text), Some(RawContent::Text), "{text}");
        }
        for other in
            ["", "text/html", "text/plain; charset=latin1", "images/png", "application/json", "video/mp4"]
        {
            assert_eq!(raw_content(other), None, "{other}");
        }
    }

    #[test]
    fn a_traceparent_is_taken_only_when_well_formed() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert!(is_traceparent(good));
        assert!(is_traceparent(&format!("01{}-more", &good[2..])));
        let bad = [
            "",
            &good[..54],
            &format!("{good}-more"),
            &good.to_uppercase(),
            &good.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &good.replace("b7ad6b7169203331", &"0".repeat(16)),
            &format!("ff{}", &good[2..]),
            &format!("01{}-a b", &good[2..]),
        ];
        for bad in bad {
            assert!(!is_traceparent(bad), "{bad}");
        }
    }
}
