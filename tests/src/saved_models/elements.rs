//! Elements of tensors as JSON and as bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// The little-endian bytes of an element; the content of one of BYTES.
pub(super) fn bytes(datatype: &str, element: &Value) -> Vec<u8> {
    let whole = || element.as_i64().expect("a whole number");
    match datatype {
        "FP32" => (element.as_f64().expect("a number") as f32).to_le_bytes().to_vec(),
        "INT32" => i32::try_from(whole()).expect("an INT32").to_le_bytes().to_vec(),
        "UINT8" => vec![u8::try_from(whole()).expect("a UINT8")],
        "BYTES" => match element["b64"].as_str() {
            Some(text) => STANDARD.decode(text).expect("base64"),
            None => element.as_str().expect("a string").as_bytes().to_vec(),
        },
        other => panic!("no model has the datatype {other}"),
    }
}

/// The elements of a tensor one after the other, those of BYTES with their lengths, as in the binary form of the Open
/// Inference Protocol.
pub(super) fn raw(datatype: &str, elements: &[Value]) -> Vec<u8> {
    let one = |element: &Value| {
        let bytes = bytes(datatype, element);
        let length = u32::try_from(bytes.len()).expect("a short element").to_le_bytes();
        if datatype == "BYTES" { [&length[..], &bytes].concat() } else { bytes }
    };
    elements.iter().flat_map(one).collect()
}

/// Reads what [`raw`] writes.
pub(super) fn from_raw(datatype: &str, mut raw: &[u8]) -> Vec<Value> {
    let mut elements = Vec::new();
    while !raw.is_empty() {
        let length = if datatype == "BYTES" { u32::from_le_bytes(*take(&mut raw)) as usize } else { 0 };
        elements.push(match datatype {
            "FP32" => json!(f32::from_le_bytes(*take(&mut raw))),
            "INT32" => json!(i32::from_le_bytes(*take(&mut raw))),
            "UINT8" => json!(take::<1>(&mut raw)[0]),
            "BYTES" => {
                let (element, rest) = raw.split_at_checked(length).expect("a whole element");
                raw = rest;
                json!(String::from_utf8(element.to_vec()).expect("outputs of the models are text"))
            }
            other => panic!("no model has the datatype {other}"),
        });
    }
    elements
}

fn take<'a, const N: usize>(raw: &mut &'a [u8]) -> &'a [u8; N] {
    let (first, rest) = raw.split_first_chunk().expect("a whole element");
    *raw = rest;
    first
}
