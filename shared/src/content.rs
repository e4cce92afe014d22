//! A value that Tepal passes on without reading it: JSON text, or bytes with their content type. Models that take such values are
//! called opaque. The stored form is part of the stored format of a queue, so it must stay the same as long as the format's number
//! does:
//!
//! | first byte | then |
//! | --- | --- |
//! | 0xe0 | the JSON text |
//! | 0xe1 | the length of the content type in one byte, the content type, the bytes |
//!
//! No stored tensor and no JSON text begins with one of these bytes. A result that is JSON is stored as its text alone, as that of any
//! model is.

use std::io::{self, Write};

use base64::{display::Base64Display, engine::general_purpose::STANDARD};
use serde::Serialize;

use crate::tensor::stored::StoredError;

const JSON: u8 = 0xe0;
/// `lua/complete.lua` knows it.
const BYTES: u8 = 0xe1;
/// The longest content type: its length is one byte in any encoding of numbers.
pub const LONGEST_TYPE: usize = 127;

/// JSON text, or bytes with their content type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// One JSON value.
    Json(&'a str),
    /// Any bytes.
    Bytes {
        /// See [`is_content_type`].
        content_type: &'a str,
        /// The bytes.
        bytes: &'a [u8],
    },
}

/// Appends the stored form of a JSON value, written without white space.
pub(crate) fn append_json(stored: &mut Vec<u8>, value: &impl Serialize) {
    stored.push(JSON);
    // Writing JSON to memory cannot fail: the names of members are strings.
    let _ = serde_json::to_writer(stored, value);
}

impl<'a> Content<'a> {
    /// The stored form.
    #[must_use]
    pub fn stored(self) -> Vec<u8> {
        match self {
            Self::Json(text) => [&[JSON][..], text.as_bytes()].concat(),
            Self::Bytes { content_type, bytes } => {
                [&[BYTES, content_type.len() as u8][..], content_type.as_bytes(), bytes].concat()
            }
        }
    }

    /// The value as JSON: the text, or that of [`write_json`].
    #[must_use]
    pub fn json(self) -> String {
        match self {
            Self::Json(text) => text.to_owned(),
            Self::Bytes { content_type, bytes } => {
                let mut text = Vec::with_capacity(most_json_bytes(bytes.len()));
                // Writing to memory cannot fail.
                let _ = write_json(content_type, bytes, &mut text);
                String::from_utf8(text).unwrap_or_default()
            }
        }
    }

    /// Reads the stored form. Does not check that JSON is well-formed.
    ///
    /// # Errors
    /// When the bytes have another form.
    pub fn read(stored: &'a [u8]) -> Result<Self, StoredError> {
        match stored.split_first() {
            Some((&JSON, text)) => std::str::from_utf8(text).map(Self::Json).map_err(|_| StoredError::Text),
            Some((&BYTES, rest)) => {
                let (length, rest) = rest.split_first().ok_or(StoredError::Incomplete)?;
                let (name, bytes) = rest.split_at_checked((*length).into()).ok_or(StoredError::Incomplete)?;
                let content_type = std::str::from_utf8(name).ok().filter(|text| is_content_type(text));
                Ok(Self::Bytes { content_type: content_type.ok_or(StoredError::Text)?, bytes })
            }
            _ => Err(StoredError::Content),
        }
    }
}

/// Whether a stored result is bytes with a content type.
#[must_use]
pub fn is_bytes(result: &[u8]) -> bool {
    result.first() == Some(&BYTES)
}

/// Whether the text can be stored as a content type: `type/subtype`, perhaps with parameters (RFC 9110, section 8.3), in at most
/// [`LONGEST_TYPE`] characters.
#[must_use]
pub fn is_content_type(text: &str) -> bool {
    let is_printable = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
    let essence = text.split(';').next().unwrap_or_default().trim_end();
    let is_token =
        |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',');
    let has_parts =
        essence.split_once('/').is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype));
    text.len() <= LONGEST_TYPE && text.bytes().all(is_printable) && has_parts
}

/// Writes bytes as a member of JSON: `{"content_type": "...", "b64": "..."}`.
///
/// # Errors
/// When `text` cannot take it.
pub fn write_json(content_type: &str, bytes: &[u8], text: &mut impl Write) -> io::Result<()> {
    text.write_all(br#"{"content_type":"#)?;
    serde_json::to_writer(&mut *text, content_type)?;
    write!(text, r#","b64":"{}"}}"#, Base64Display::new(bytes, &STANDARD))
}

/// Most bytes that [`write_json`] writes for so many bytes.
#[must_use]
pub fn most_json_bytes(bytes: usize) -> usize {
    const AROUND: usize = 32;
    AROUND + 2 * LONGEST_TYPE + bytes.div_ceil(3).saturating_mul(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_read_as_it_was_stored() {
        let content = [
            Content::Json(r#"{"text":"é"}"#),
            Content::Json("null"),
            Content::Bytes { content_type: "image/png", bytes: b"\x89PNG" },
            Content::Bytes { content_type: "text/plain; charset=utf-8", bytes: b"" },
        ];
        for content in content {
            assert_eq!(Content::read(&content.stored()), Ok(content));
        }
    }

    /// Jobs outlive an upgrade, so these bytes never change.
    #[test]
    fn the_bytes_are_those_of_the_format() {
        assert_eq!(Content::Json("[1]").stored(), b"\xe0[1]");
        let bytes = Content::Bytes { content_type: "a/b", bytes: &[7, 0] }.stored();
        assert_eq!(bytes, b"\xe1\x03a/b\x07\x00");
        assert!(is_bytes(&bytes) && !is_bytes(b"\x02") && !is_bytes(b"{}") && !is_bytes(b""));
    }

    #[test]
    fn other_bytes_are_refused() {
        for bad in
            [&b""[..], b"{}", b"\xe0\xff", b"\xe1", b"\xe1\x04a/b", b"\xe1\x03a b", b"\xd1\x01", b"\xff\x00"]
        {
            assert!(Content::read(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_content_type_has_two_parts_and_is_short() {
        let longest = format!("a/{}", "b".repeat(LONGEST_TYPE - 2));
        for good in
            ["image/png", "multipart/form-data; boundary=\"a b\"", "text/plain;charset=utf-8", &longest]
        {
            assert!(is_content_type(good), "{good}");
        }
        for bad in
            ["", "image", "/png", "image/", "image/png\n", "é/a", "a b/c", "a/b, c/d", &format!("{longest}b")]
        {
            assert!(!is_content_type(bad), "{bad}");
        }
    }

    #[test]
    fn the_length_of_json_is_bounded() {
        let longest = format!("\"/{}", "\"".repeat(LONGEST_TYPE - 2));
        for content_type in ["a/b", &longest] {
            for length in 0..10 {
                let mut text = Vec::new();
                write_json(content_type, &vec![0xff; length], &mut text).unwrap();
                assert!(text.len() <= most_json_bytes(length), "{}", String::from_utf8_lossy(&text));
                let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
                assert_eq!(value["content_type"], content_type);
            }
        }
    }
}
