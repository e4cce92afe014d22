//! The JSON Schema of each member of a submission.

use serde_json::{Value, json};
use tepal_shared::{job::Priority, tensor::DataType};

use super::LONGEST_SECONDS;

pub(super) fn inputs() -> Value {
    let datatypes = DataType::ALL.map(DataType::as_str);
    json!({
        "type": "array",
        "description": "The inputs of the model as tensors, in place of `data`",
        "items": {
            "type": "object",
            "required": ["name", "shape", "datatype"],
            "additionalProperties": false,
            "properties": {
                "name": {"type": "string"},
                "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}},
                "datatype": {"enum": datatypes},
                "data": {"description": "The elements, flat or nested as the shape says"},
                "parameters": {
                    "type": "object",
                    "description": "In binary form, in place of `data`",
                    "additionalProperties": false,
                    "properties": {"binary_data_size": {"type": "integer", "minimum": 0}},
                },
            },
        },
    })
}

pub(super) fn outputs() -> Value {
    json!({
        "type": "array",
        "description": "The outputs that the result contains, with `inputs`; all without it",
        "items": {"type": "string"},
    })
}

/// What a model takes is in its description, not in the contract.
pub(super) fn data() -> Value {
    json!({"description": "The rows. `data_schema` of GET /models/{name} is the schema of a model's rows"})
}

pub(super) fn with_default(priority: &Value) -> Value {
    let mut schema = priority.clone();
    schema["default"] = Priority::default().as_str().into();
    schema
}

pub(super) fn span(description: &str) -> Value {
    json!({
        "type": "number",
        "exclusiveMinimum": 0,
        "maximum": LONGEST_SECONDS,
        "description": description,
    })
}
