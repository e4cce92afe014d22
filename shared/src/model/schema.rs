//! The JSON Schema of `data`: what [`Model::read_data`] accepts.

use half::{bf16, f16};
use serde_json::{Map, Value, json};

use super::{Axis, InputSpec, Model};
use crate::tensor::DataType;

/// Standard base64 with padding and without stray bits, as [`crate::tensor::bytes`] reads it.
const BASE64: &str = "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$";

impl Model {
    /// The JSON Schema of the value that [`Model::read_data`] reads.
    #[must_use]
    pub fn data_schema(&self) -> Value {
        if self.is_opaque {
            return Value::Bool(true);
        }
        let row = match self.inputs.as_slice() {
            [input] => nested(input.shape.axes(), input),
            inputs => {
                let values =
                    inputs.iter().map(|input| (input.name.clone(), nested(input.shape.axes(), input)));
                json!({
                    "type": "object",
                    "properties": values.collect::<Map<_, _>>(),
                    "required": inputs.iter().map(|input| &input.name).collect::<Vec<_>>(),
                    "additionalProperties": false,
                })
            }
        };
        if !self.has_batch_axis() {
            return row;
        }
        json!({
            "type": "array",
            "description": "The rows; all rows of a job are run together",
            "minItems": 1,
            "maxItems": self.max_batch,
            "items": row,
        })
    }
}

fn nested(axes: &[Axis], input: &InputSpec) -> Value {
    match axes.split_first() {
        None => element(input),
        Some((Axis::Variable, inner)) => json!({
            "type": "array",
            "minItems": 1,
            "items": nested(inner, input),
        }),
        Some((Axis::Fixed(length), inner)) => json!({
            "type": "array",
            "minItems": length,
            "maxItems": length,
            "items": nested(inner, input),
        }),
    }
}

fn element(input: &InputSpec) -> Value {
    match input.datatype {
        DataType::Bool => json!({"type": "boolean"}),
        DataType::Bytes => json!({"anyOf": [
            {"type": "string"},
            {
                "type": "object",
                "properties": {"b64": {"type": "string", "pattern": BASE64}},
                "required": ["b64"],
                "additionalProperties": false,
            },
        ]}),
        _ => match input.datatype.integers() {
            Some(range) => {
                let end = |end: i128| i64::try_from(end).map_or_else(|_| json!(end as u64), |end| json!(end));
                let (least, most) = (end(*range.start()), end(*range.end()));
                let mut integer = json!({"type": "integer", "minimum": least, "maximum": most});
                input.greater_than.into_iter().for_each(|bound| integer["exclusiveMinimum"] = json!(bound));
                input.less_than.into_iter().for_each(|bound| integer["exclusiveMaximum"] = json!(bound));
                integer
            }
            None => float(input),
        },
    }
}

/// Numbers, and the names of the other values that the bounds let through.
fn float(input: &InputSpec) -> Value {
    let mut number = json!({"type": "number"});
    // A bound beyond the type's own limit changes nothing.
    let limit = overflow(input.datatype).unwrap_or(f64::INFINITY);
    match (input.datatype, input.greater_than.filter(|bound| *bound > -limit)) {
        (DataType::Fp64, Some(bound)) => number["exclusiveMinimum"] = json!(bound),
        (datatype, Some(bound)) => number["minimum"] = json!(next_above(datatype, bound)),
        (datatype, None) => {
            overflow(datatype).into_iter().for_each(|limit| number["exclusiveMinimum"] = json!(-limit));
        }
    }
    match (input.datatype, input.less_than.filter(|bound| *bound < limit)) {
        (DataType::Fp64, Some(bound)) => number["exclusiveMaximum"] = json!(bound),
        (datatype, Some(bound)) => number["maximum"] = json!(-next_above(datatype, -bound)),
        (datatype, None) => {
            overflow(datatype).into_iter().for_each(|limit| number["exclusiveMaximum"] = json!(limit));
        }
    }
    let names: &[&str] = match (input.greater_than, input.less_than) {
        (None, None) => &["NaN", "Infinity", "-Infinity"],
        (Some(_), None) => &["Infinity"],
        (None, Some(_)) => &["-Infinity"],
        (Some(_), Some(_)) => return number,
    };
    json!({"anyOf": [number, {"enum": names}]})
}

/// The least number that is rounded to infinity: half a step above the largest one of the type. No JSON number overflows FP64
/// unless the parser refuses it.
fn overflow(datatype: DataType) -> Option<f64> {
    let (largest, digits) = match datatype {
        DataType::Fp16 => (f64::from(f16::MAX), f16::MANTISSA_DIGITS),
        DataType::Bf16 => (f64::from(bf16::MAX), bf16::MANTISSA_DIGITS),
        DataType::Fp32 => (f64::from(f32::MAX), f32::MANTISSA_DIGITS),
        _ => return None,
    };
    // A step is 2^(1 - digits) of the power of two below.
    let power = 2_f64.powi(largest.log2().floor() as i32);
    Some(largest + power / 2_f64.powi(digits as i32))
}

/// The least element of the type above the bound, because bounds are checked in the model's own type. A number is checked after it
/// was rounded, so the reader also accepts numbers up to half a step below this one.
pub(super) fn next_above(datatype: DataType, bound: f64) -> f64 {
    fn least<T: Copy + Into<f64>>(nearest: T, next: impl Fn(T) -> T, bound: f64) -> f64 {
        if nearest.into() > bound { nearest.into() } else { next(nearest).into() }
    }
    match datatype {
        DataType::Fp16 => {
            least(f16::from_f64(bound), |half| f16::from_bits(bits_above(half.to_bits())), bound)
        }
        DataType::Bf16 => {
            least(bf16::from_f64(bound), |half| bf16::from_bits(bits_above(half.to_bits())), bound)
        }
        _ => least(bound as f32, f32::next_up, bound),
    }
}

/// The bits of the next larger 16-bit float.
fn bits_above(bits: u16) -> u16 {
    match bits {
        0x8000 => 1,
        negative if negative > 0x8000 => negative - 1,
        positive => positive + 1,
    }
}

#[cfg(test)]
mod tests;
