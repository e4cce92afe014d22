//! The memory that the message of an inference takes. A few bytes can become a whole list or map, so it is found, and reserved, before
//! the message is decoded.

use prost::decode_length_delimiter;
use tepal_proto::open_inference::{
    InferParameter, InferTensorContents, ModelInferRequest,
    model_infer_request::{InferInputTensor, InferRequestedOutputTensor},
};

use crate::{
    error::{ApiError, CallError},
    http::budget::Meter,
};

/// A list doubles when it is full, and the one before is copied.
const GROWING: usize = 3;
/// An entry of a map or a list: its pointer, length and capacity, and what an allocation takes at least.
const ENTRY: usize = 64;

/// What a field becomes.
#[derive(Clone, Copy)]
enum Kind {
    /// Bytes or text.
    Bytes,
    /// Bytes that are copied once more into the job.
    Tensor,
    /// Numbers that take at most this many bytes for each byte of the message, their bytes in the job included.
    Numbers(usize),
    Message(&'static Layout),
}

/// The fields of a message that are no single number.
struct Layout {
    /// Bytes of the message itself.
    size: usize,
    fields: &'static [(u64, Kind)],
}

static REQUEST: Layout = Layout {
    size: size_of::<ModelInferRequest>(),
    fields: &[
        (1, Kind::Bytes),
        (2, Kind::Bytes),
        (3, Kind::Bytes),
        (4, Kind::Message(&PARAMETER)),
        (5, Kind::Message(&INPUT)),
        (6, Kind::Message(&OUTPUT)),
        (7, Kind::Tensor),
    ],
};
static INPUT: Layout = Layout {
    size: GROWING * size_of::<InferInputTensor>(),
    fields: &[
        (1, Kind::Bytes),
        (2, Kind::Bytes),
        (3, Kind::Numbers(GROWING * size_of::<i64>())),
        (4, Kind::Message(&PARAMETER)),
        (5, Kind::Message(&CONTENTS)),
    ],
};
static OUTPUT: Layout = Layout {
    size: GROWING * size_of::<InferRequestedOutputTensor>(),
    fields: &[(1, Kind::Bytes), (2, Kind::Message(&PARAMETER))],
};
/// An entry of a map.
static PARAMETER: Layout = Layout {
    size: ENTRY + GROWING * size_of::<InferParameter>(),
    fields: &[(1, Kind::Bytes), (2, Kind::Bytes)],
};
static CONTENTS: Layout = Layout {
    size: size_of::<InferTensorContents>(),
    fields: &[
        (1, Kind::Numbers(3)),
        (2, Kind::Numbers(12)),
        (3, Kind::Numbers(24)),
        (4, Kind::Numbers(12)),
        (5, Kind::Numbers(24)),
        (6, Kind::Numbers(3)),
        (7, Kind::Numbers(3)),
        (8, Kind::Tensor),
    ],
};

/// Reserves the memory that the message takes when it is decoded and becomes a job.
pub(super) fn pay(message: &[u8], meter: &mut Meter) -> Result<(), ApiError> {
    if !meter.is_on() {
        return Ok(());
    }
    let weight =
        weigh(&REQUEST, message).ok_or_else(|| CallError::NotMessage("a field is malformed".to_owned()))?;
    let _ = meter.take(weight);
    meter.exceeded().map_or(Ok(()), |exceeded| Err(exceeded.into()))
}

/// `None` if a field is malformed. See "Encoding" in the documentation of Protocol Buffers.
fn weigh(layout: &Layout, mut message: &[u8]) -> Option<usize> {
    let mut weight = layout.size;
    while !message.is_empty() {
        let key = varint(&mut message)?;
        let kind = layout.fields.iter().find(|(number, _)| *number == key >> 3).map(|(_, kind)| *kind);
        weight += match key & 7 {
            // A number alone can be an element of a list.
            0 => varint(&mut message).map(|_| single(kind))?,
            1 => message.split_off(..8).map(|_| single(kind))?,
            5 => message.split_off(..4).map(|_| single(kind))?,
            2 => {
                let length = decode_length_delimiter(&mut message).ok()?;
                inside(kind, message.split_off(..length)?)?
            }
            _ => return None,
        };
    }
    Some(weight)
}

/// A number alone, which may be an element of a list: at most eight bytes, also in the job.
fn single(kind: Option<Kind>) -> usize {
    match kind {
        Some(Kind::Numbers(_)) => (GROWING + 2) * size_of::<u64>(),
        _ => 0,
    }
}

fn inside(kind: Option<Kind>, value: &[u8]) -> Option<usize> {
    match kind {
        // It is skipped.
        None => Some(0),
        Some(Kind::Bytes) => Some(ENTRY + value.len()),
        Some(Kind::Tensor) => Some(GROWING * ENTRY + 2 * value.len()),
        Some(Kind::Numbers(times)) => Some(times * value.len()),
        Some(Kind::Message(layout)) => weigh(layout, value),
    }
}

/// A number in the form of a length.
fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *message.split_off_first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use prost::{Message as _, bytes::Bytes};

    use super::*;
    use crate::http::budget::Budget;

    fn weight(request: &ModelInferRequest) -> usize {
        weigh(&REQUEST, &request.encode_to_vec()).unwrap()
    }

    fn contents(contents: InferTensorContents) -> usize {
        let input = InferInputTensor { contents: Some(contents), ..InferInputTensor::default() };
        weight(&ModelInferRequest { inputs: vec![input], ..ModelInferRequest::default() })
    }

    #[test]
    fn raw_tensors_weigh_twice_their_bytes() {
        let raw = vec![Bytes::from(vec![7; 1 << 20])];
        let weight = weight(&ModelInferRequest { raw_input_contents: raw, ..ModelInferRequest::default() });
        assert!((2 << 20..(2 << 20) + 2000).contains(&weight), "{weight}");
    }

    #[test]
    fn a_message_weighs_at_least_what_it_becomes() {
        let many = |count| vec![InferInputTensor::default(); count];
        let empty = weight(&ModelInferRequest { inputs: many(10_000), ..ModelInferRequest::default() });
        assert!(empty >= 10_000 * size_of::<InferInputTensor>(), "{empty}");
        let parameters = (0..10_000).map(|number| (number.to_string(), InferParameter::default())).collect();
        let parameters = weight(&ModelInferRequest { parameters, ..ModelInferRequest::default() });
        assert!(parameters >= 10_000 * (size_of::<(String, InferParameter)>() + 16), "{parameters}");
        let ints = contents(InferTensorContents { int_contents: vec![1; 10_000], ..Default::default() });
        assert!(ints >= 10_000 * 8, "{ints}");
        let strings =
            contents(InferTensorContents { bytes_contents: vec![vec![]; 10_000], ..Default::default() });
        assert!(strings >= 10_000 * size_of::<Vec<u8>>() * 2, "{strings}");
    }

    #[test]
    fn numbers_that_are_not_packed_weigh_as_much() {
        // Field 3 of an input, a number alone, ten thousand times.
        let input = [0x18, 1].repeat(10_000);
        let message = [&[0x2a, 0xa0, 0x9c, 0x01], input.as_slice()].concat();
        assert!(ModelInferRequest::decode(message.as_slice()).unwrap().inputs[0].shape.len() == 10_000);
        assert!(weigh(&REQUEST, &message).unwrap() >= 10_000 * 16);
    }

    #[test]
    fn what_is_malformed_or_too_heavy_is_refused() {
        for bad in [
            &b"\x0a\x05ab"[..],
            b"\x0b",
            b"\x0f",
            b"\x80",
            b"\x09\0",
            b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        ] {
            assert_eq!(weigh(&REQUEST, bad), None, "{bad:?}");
        }
        let mut meter = Meter::on(Budget::new(0, 100_000).share());
        let message = [0x2a, 0].repeat(10_000);
        assert!(matches!(pay(&message, &mut meter), Err(ApiError::BodyTakesTooMuch(100_000))));
        assert!(pay(&message, &mut Meter::off()).is_ok());
    }
}
