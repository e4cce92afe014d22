//! The shapes of bodies. The parts that depend on the model come from its description.

use serde_json::{Value, json};
use tepal_shared::{
    job::{JobStatus, Priority},
    model::{InputSpec, Model},
    tensor::DType,
};

use super::super::{
    batch::MOST as MOST_JOBS,
    lookup::{LONGEST as LONGEST_ID, MOST as MOST_IDS},
};
use crate::jobs::submission::LONGEST_SECONDS;

/// Every schema by its name.
pub(super) fn all(model: &Model) -> Value {
    let seconds = |description: &str| {
        json!({
            "type": "number",
            "exclusiveMinimum": 0,
            "maximum": LONGEST_SECONDS,
            "description": description,
        })
    };
    json!({
        "JobId": {"type": "string", "format": "uuid", "description": "UUIDv7"},
        "JobStatus": {"type": "string", "enum": JobStatus::ALL.map(JobStatus::as_str)},
        "Priority": {"type": "string", "enum": Priority::ALL.map(Priority::as_str)},
        "Submission": {
            "type": "object",
            "required": ["data"],
            "additionalProperties": false,
            "properties": {
                "data": data(model),
                "priority": {"$ref": "#/components/schemas/Priority", "default": "normal"},
                "max_queue_seconds": seconds("The job fails when nobody began to run it by then"),
                "timeout_seconds": seconds("The job fails when it has not ended so long after its first attempt began"),
            },
        },
        "Batch": {
            "type": "array",
            "minItems": 1,
            "maxItems": MOST_JOBS,
            // An invalid item is rejected by itself, so no item makes the whole batch invalid.
            "items": {"anyOf": [reference("Submission"), {}]},
        },
        "Accepted": {
            "type": "object",
            "required": ["job_id", "status"],
            "properties": {"job_id": reference("JobId"), "status": reference("JobStatus")},
        },
        "BatchAnswer": {
            "type": "object",
            "required": ["accepted", "refused", "jobs"],
            "properties": {
                "accepted": {"type": "integer", "minimum": 0},
                "refused": {"type": "integer", "minimum": 0},
                "jobs": {"type": "array", "items": {"oneOf": [
                    reference("Accepted"),
                    {"type": "object", "required": ["problem"], "properties": {
                        "problem": {"anyOf": [reference("Problem"), reference("BriefProblem")]},
                    }},
                ]}},
            },
        },
        "Job": job(),
        "Page": {
            "type": "object",
            "required": ["jobs"],
            "properties": {
                "jobs": {"type": "array", "items": reference("Job")},
                "next_cursor": {"type": "string"},
            },
        },
        "Lookup": {
            "type": "object",
            "required": ["job_ids"],
            "additionalProperties": false,
            "properties": {"job_ids": {
                "type": "array",
                "minItems": 1,
                "maxItems": MOST_IDS,
                "description": "One that is given more than once is answered once",
                "items": {"type": "string", "maxLength": LONGEST_ID},
            }},
        },
        "LookupAnswer": {
            "type": "object",
            "required": ["jobs", "not_found"],
            "properties": {
                "jobs": {"type": "array", "items": reference("Job")},
                "not_found": {"type": "array", "items": {"type": "string"}},
                "not_read": {"type": "array", "items": {"type": "string"}},
            },
        },
        "Health": {
            "type": "object",
            "required": ["status", "components"],
            "properties": {
                "status": {"enum": ["healthy", "unhealthy"]},
                "components": {
                    "type": "object",
                    "additionalProperties": {
                        "enum": ["ok", "down", "read_only", "misconfigured", "full", "wrong_topology"],
                    },
                },
                "warnings": {"type": "array", "items": {
                    "type": "object",
                    "required": ["code", "detail"],
                    "properties": {"code": {"type": "string"}, "detail": {"type": "string"}},
                }},
            },
        },
        "Metadata": {
            "type": "object",
            "required": ["model_spec", "metadata"],
            "properties": {
                "model_spec": {
                    "type": "object",
                    "required": ["name", "version"],
                    "properties": {"name": {"type": "string"}, "version": {"type": "string"}},
                },
                "metadata": {"type": "object", "required": ["signature_def"]},
            },
        },
        "Problem": problem(),
        "BriefProblem": {
            "type": "object",
            "description": "A problem of a batch that has many, as far as a program needs it",
            "required": ["type", "status", "code"],
            "properties": {
                "type": {"type": "string", "format": "uri-reference"},
                "status": {"type": "integer", "minimum": 400, "maximum": 599},
                "code": {"type": "string"},
            },
        },
    })
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn time(description: &str) -> Value {
    json!({"type": "string", "format": "date-time", "description": description})
}

fn job() -> Value {
    json!({
        "type": "object",
        "required": ["job_id", "status", "priority", "attempts", "created_at"],
        "properties": {
            "job_id": reference("JobId"),
            "status": reference("JobStatus"),
            "priority": reference("Priority"),
            "attempts": {"type": "integer", "minimum": 0, "description": "Attempts that began"},
            "created_at": time("When it was accepted"),
            "started_at": time("When its first attempt began"),
            "finished_at": time("When it ended; after that no byte changes"),
            "next_attempt_at": time("When its next attempt is due, while it waits for one"),
            "retry_of": reference("JobId"),
            "result": {
                "type": "object",
                "description": "Once completed. For several rows `predictions` has one such object for each",
            },
            "error": {"type": "string", "description": "Why it failed, for people"},
            "error_code": {"type": "string", "description": "Why it failed, for programs"},
        },
    })
}

fn problem() -> Value {
    json!({
        "type": "object",
        "description": "RFC 9457",
        "required": ["type", "title", "status", "detail", "code", "request_id"],
        "properties": {
            "type": {"type": "string", "format": "uri-reference"},
            "title": {"type": "string"},
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": {"type": "string"},
            "instance": {"type": "string", "format": "uri-reference"},
            "code": {"type": "string", "description": "One word for programs; does not change"},
            "request_id": {"type": "string"},
            "errors": {"type": "array", "items": {
                "type": "object",
                "required": ["detail", "code"],
                "properties": {
                    "pointer": {
                        "type": "string",
                        "description": "JSON Pointer (RFC 6901) into the body; a long one is cut and ends in ...",
                    },
                    "parameter": {"type": "string"},
                    "header": {"type": "string"},
                    "detail": {"type": "string"},
                    "code": {"type": "string"},
                },
            }},
        },
    })
}

/// The rows that the model takes.
fn data(model: &Model) -> Value {
    let row = match model.inputs.as_slice() {
        [input] => nested(&input.shape, input),
        inputs => {
            let elements = inputs
                .iter()
                .flat_map(|input| std::iter::repeat_n(number(input), input.shape.iter().product::<usize>()));
            let elements: Vec<Value> = elements.collect();
            let length = elements.len();
            json!({"type": "array", "prefixItems": elements, "minItems": length, "maxItems": length})
        }
    };
    json!({
        "type": "array",
        "description": "The rows; all rows of a job are run together",
        "minItems": 1,
        "maxItems": model.max_rows,
        "items": row,
    })
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

/// Bounds are checked in the model's own type. So a 32-bit bound is given as the nearest 32-bit number within it.
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
