//! Reads one element of JSON and appends its bytes.

use std::fmt::Display;

use half::{bf16, f16};
use serde_json::Number;

use super::{DataType, Element, bounds::Bounds, bytes};
use crate::json::JsonRef;

/// Why a value cannot be an element of a tensor.
pub(crate) struct Unfit {
    /// One word for programs.
    pub(crate) code: &'static str,
    /// A sentence without its subject.
    pub(crate) detail: String,
}

/// What the elements of a tensor may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowed {
    pub(crate) datatype: DataType,
    pub(crate) bounds: Bounds,
    /// Whether a whole float, such as 5.0, is an integer.
    pub(crate) whole_floats: bool,
}

impl Allowed {
    /// Any element of this type.
    pub(crate) fn any(datatype: DataType) -> Self {
        Self { datatype, bounds: Bounds::default(), whole_floats: true }
    }
}

impl Unfit {
    fn new(code: &'static str, detail: String) -> Self {
        Self { code, detail }
    }
}

/// Appends the element that the value stands for. On an error, the data may have grown.
pub(crate) fn append(data: &mut Vec<u8>, allowed: Allowed, value: JsonRef<'_>) -> Result<(), Unfit> {
    match allowed.datatype {
        DataType::Fp32 => float(data, allowed, value, |number| number as f32),
        DataType::Fp64 => float(data, allowed, value, |number| number),
        DataType::Fp16 => float(data, allowed, value, f16::from_f64),
        DataType::Bf16 => float(data, allowed, value, bf16::from_f64),
        DataType::Bool => boolean(data, value),
        DataType::Bytes => byte_string(data, value),
        _ => integer(data, allowed, value),
    }
}

fn boolean(data: &mut Vec<u8>, value: JsonRef<'_>) -> Result<(), Unfit> {
    let JsonRef::Bool(element) = value else { return Err(wrong_kind("true or false", value)) };
    element.append(data);
    Ok(())
}

/// A number is checked after its conversion: 1e39 is a finite JSON number, but infinite as FP32.
fn float<T: Element + Into<f64>>(
    data: &mut Vec<u8>,
    allowed: Allowed,
    value: JsonRef<'_>,
    convert: fn(f64) -> T,
) -> Result<(), Unfit> {
    let (element, given): (T, &dyn Display) = match &value {
        JsonRef::Number(given) => match given.as_f64().map(convert).filter(|element| element.is_finite()) {
            Some(element) => (element, given),
            None => return Err(unrepresentable(allowed, given)),
        },
        JsonRef::String(name) => match non_finite(name) {
            Some(element) => (convert(element), name),
            None => return Err(wrong_kind("a number", value)),
        },
        _ => match value.large() {
            Some(given) => return Err(unrepresentable(allowed, &given)),
            None => return Err(wrong_kind("a number", value)),
        },
    };
    check_bounds(allowed.bounds, element.into(), given)?;
    element.append(data);
    Ok(())
}

/// The names of values that have no JSON number.
fn non_finite(name: &str) -> Option<f64> {
    match name {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

fn integer(data: &mut Vec<u8>, allowed: Allowed, value: JsonRef<'_>) -> Result<(), Unfit> {
    let JsonRef::Number(given) = value else {
        return Err(match value.large() {
            Some(given) => unrepresentable(allowed, &given),
            None => wrong_kind("a number", value),
        });
    };
    let in_range = |number: &i128| allowed.datatype.integers().is_some_and(|range| range.contains(number));
    let number = whole(given).filter(|_| allowed.whole_floats || !given.is_f64());
    let Some(number) = number.filter(in_range) else { return Err(unrepresentable(allowed, given)) };
    check_bounds(allowed.bounds, number as f64, given)?;
    data.extend_from_slice(&number.to_le_bytes()[..allowed.datatype.width().unwrap_or_default()]);
    Ok(())
}

/// The number, if it is whole: 5.0 is 5. Larger floats are beyond all types.
fn whole(given: &Number) -> Option<i128> {
    const BEYOND: f64 = (1_u128 << 64) as f64;
    let exact = given.as_i64().map(i128::from).or_else(|| given.as_u64().map(i128::from));
    exact.or_else(|| {
        given.as_f64().filter(|number| number.fract() == 0.0 && number.abs() <= BEYOND).map(|n| n as i128)
    })
}

fn byte_string(data: &mut Vec<u8>, value: JsonRef<'_>) -> Result<(), Unfit> {
    let decoded;
    let element: &[u8] = match (value, bytes::from_base64(value)) {
        (JsonRef::String(text), _) => text.as_bytes(),
        (_, Some(Ok(bytes))) => {
            decoded = bytes;
            &decoded
        }
        (_, Some(Err(error))) => {
            let detail = format!("must be base64 with padding (RFC 4648, section 4): {error}");
            return Err(Unfit::new("invalid_base64", detail));
        }
        (JsonRef::Object(_), None) if value.large().is_none() => {
            let detail = r#"must be a string or {"b64": "..."}, not another object"#.to_owned();
            return Err(Unfit::new("type", detail));
        }
        (_, None) => return Err(wrong_kind(r#"a string or {"b64": "..."}"#, value)),
    };
    let too_long = || Unfit::new("length", format!("must have at most {} bytes", u32::MAX));
    bytes::append(data, element).ok_or_else(too_long)
}

fn check_bounds(bounds: Bounds, element: f64, given: &dyn Display) -> Result<(), Unfit> {
    if bounds.contain(element) {
        return Ok(());
    }
    Err(Unfit::new("out_of_range", format!("must be {bounds}, but is {given}")))
}

fn wrong_kind(expected: &str, value: JsonRef<'_>) -> Unfit {
    Unfit::new("type", format!("must be {expected}, not {}", value.kind()))
}

fn unrepresentable(allowed: Allowed, given: &dyn Display) -> Unfit {
    let expected = match allowed.datatype.integers() {
        Some(range) => format!("an integer from {} to {}", range.start(), range.end()),
        None => {
            let bits = allowed.datatype.width().unwrap_or_default() * 8;
            format!("a finite {bits}-bit float")
        }
    };
    Unfit::new("not_representable", format!("must be {expected}, and {given} is none"))
}
