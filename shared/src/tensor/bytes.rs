//! Elements of the type BYTES. Each has its length before it, four bytes little-endian, as in the binary form of the Open Inference
//! Protocol. In JSON an element is a string, or `{"b64": "..."}` if it is not UTF-8.

use std::io::{self, Write};

use base64::{Engine as _, display::Base64Display, engine::general_purpose::STANDARD};

use crate::json::JsonRef;

/// The only member of an object that contains bytes as base64 (RFC 4648, section 4).
pub const BASE64: &str = "b64";

/// Bytes of the length before an element.
pub(crate) const LENGTH: usize = size_of::<u32>();

/// Appends an element; `None` if it has more than 4 GiB.
#[must_use]
pub fn append(data: &mut Vec<u8>, element: &[u8]) -> Option<()> {
    let length = u32::try_from(element.len()).ok()?;
    data.extend_from_slice(&length.to_le_bytes());
    data.extend_from_slice(element);
    Some(())
}

/// The elements, up to the first that is incomplete.
pub fn elements(mut data: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = data.split_first_chunk::<LENGTH>()?;
        let (element, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        data = rest;
        Some(element)
    })
}

/// Where each part of `width` elements begins in the data, and the end of the last part. `None` if the data is not a whole number
/// of parts.
#[must_use]
pub fn parts(data: &[u8], width: usize) -> Option<Vec<usize>> {
    let mut ends = vec![0];
    let (mut end, mut count) = (0, 0_usize);
    for element in elements(data) {
        end += LENGTH + element.len();
        count += 1;
        if count.is_multiple_of(width) {
            ends.push(end);
        }
    }
    (end == data.len() && count.is_multiple_of(width)).then_some(ends)
}

/// Writes an element as JSON.
///
/// # Errors
/// When `text` cannot take it.
pub fn write_json(element: &[u8], text: &mut impl Write) -> io::Result<()> {
    match std::str::from_utf8(element) {
        Ok(string) => Ok(serde_json::to_writer(text, string)?),
        Err(_) => write_base64(element, text),
    }
}

/// Writes an element as base64, whatever its bytes.
///
/// # Errors
/// When `text` cannot take it.
pub fn write_base64(element: &[u8], text: &mut impl Write) -> io::Result<()> {
    write!(text, r#"{{"{BASE64}":"{}"}}"#, Base64Display::new(element, &STANDARD))
}

/// The bytes of `{"b64": "..."}`. `None` if the value is no such object; an error says what is wrong with the base64.
#[must_use]
pub fn from_base64(value: JsonRef<'_>) -> Option<Result<Vec<u8>, base64::DecodeError>> {
    match value {
        JsonRef::Object(members) if members.len() == 1 => {
            Some(STANDARD.decode(members.get(BASE64)?.as_str()?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn data(elements: &[&[u8]]) -> Vec<u8> {
        let mut data = Vec::new();
        elements.iter().for_each(|element| append(&mut data, element).unwrap());
        data
    }

    #[test]
    fn elements_are_read_up_to_the_first_incomplete_one() {
        let mut data = data(&[b"a", b"", b"\xff\xfe"]);
        assert_eq!(data, b"\x01\0\0\0a\0\0\0\0\x02\0\0\0\xff\xfe");
        assert_eq!(elements(&data).collect::<Vec<_>>(), [&b"a"[..], b"", b"\xff\xfe"]);
        data.pop();
        assert_eq!(elements(&data).count(), 2);
        assert_eq!(elements(b"\xff\xff\xff\xff").count(), 0);
    }

    #[test]
    fn parts_of_several_elements_are_found() {
        let mut data = data(&[b"a", b"bc", b"", b"d"]);
        assert_eq!(parts(&data, 2), Some(vec![0, 11, 20]));
        assert_eq!(parts(&data, 4), Some(vec![0, 20]));
        assert_eq!(parts(&data, 3), None);
        data.pop();
        assert_eq!(parts(&data, 1), None);
        assert_eq!(parts(&[], 1), Some(vec![0]));
    }

    #[test]
    fn text_is_a_string_and_other_bytes_are_base64() {
        let json = |element: &[u8]| {
            let mut text = Vec::new();
            write_json(element, &mut text).unwrap();
            serde_json::from_slice::<Value>(&text).unwrap()
        };
        assert_eq!(json("a\"\u{e9}\0".as_bytes()), json!("a\"\u{e9}\0"));
        assert_eq!(json(b"\xff\xfe"), json!({"b64": "//4="}));
        assert_eq!(from_base64((&json(b"\xff\xfe")).into()), Some(Ok(b"\xff\xfe".to_vec())));
    }

    #[test]
    fn only_one_member_with_canonical_base64_is_read() {
        for other in [json!("a"), json!({}), json!({"b64": 1}), json!({"b64": "", "a": 1}), json!({"a": ""})]
        {
            assert_eq!(from_base64((&other).into()), None, "{other}");
        }
        for bad in ["_w==", "/w", "/w=", "/x==", "/w==\n", "a b=", "===="] {
            assert!(from_base64((&json!({"b64": bad})).into()).unwrap().is_err(), "{bad}");
        }
    }
}
