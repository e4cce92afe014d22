//! The JSON Schema of `data`: what [`Model::read_rows`] accepts.

use serde_json::{Value, json};

use super::{InputSpec, Model};
use crate::tensor::DType;

impl Model {
    /// The JSON Schema of the value that [`Model::read_rows`] reads.
    #[must_use]
    pub fn data_schema(&self) -> Value {
        let row = match self.inputs.as_slice() {
            [input] => nested(&input.shape, input),
            inputs => {
                let elements = inputs.iter().flat_map(|input| {
                    std::iter::repeat_n(number(input), input.shape.iter().product::<usize>())
                });
                let elements: Vec<Value> = elements.collect();
                let length = elements.len();
                json!({"type": "array", "prefixItems": elements, "minItems": length, "maxItems": length})
            }
        };
        json!({
            "type": "array",
            "description": "The rows; all rows of a job are run together",
            "minItems": 1,
            "maxItems": self.max_rows,
            "items": row,
        })
    }
}

fn nested(shape: &[usize], input: &InputSpec) -> Value {
    match shape.split_first() {
        None => number(input),
        Some((length, inner)) => json!({
            "type": "array",
            "minItems": length,
            "maxItems": length,
            "items": nested(inner, input),
        }),
    }
}

/// Bounds are checked in the model's own type, so a 32-bit bound is given as the nearest 32-bit number within it.
fn number(input: &InputSpec) -> Value {
    let (kind, low, high) = match input.dtype {
        DType::Float => ("number", f64::from(f32::MIN), f64::from(f32::MAX)),
        DType::Double => ("number", f64::MIN, f64::MAX),
        DType::Int32 => ("integer", f64::from(i32::MIN), f64::from(i32::MAX)),
        DType::Int64 => ("integer", i64::MIN as f64, i64::MAX as f64),
    };
    let mut number = json!({"type": kind});
    match (input.dtype, input.greater_than) {
        (DType::Float, Some(bound)) => number["minimum"] = json!(f64::from((bound as f32).next_up())),
        (_, Some(bound)) => number["exclusiveMinimum"] = json!(bound),
        (DType::Float | DType::Int32, None) => number["minimum"] = json!(low),
        _ => {}
    }
    match (input.dtype, input.less_than) {
        (DType::Float, Some(bound)) => number["maximum"] = json!(f64::from((bound as f32).next_down())),
        (_, Some(bound)) => number["exclusiveMaximum"] = json!(bound),
        (DType::Float | DType::Int32, None) => number["maximum"] = json!(high),
        _ => {}
    }
    number
}
