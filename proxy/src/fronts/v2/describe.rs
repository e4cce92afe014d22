//! The operations in the contract.

use serde_json::{Value, json};
use tepal_shared::tensor::{DataType, open_inference::binary};

use super::{
    idempotency, inference, metadata,
    openapi::{
        contract::Contract,
        operation::{Operation, Tag, answer},
        parts::prefer,
    },
    request::LONGEST_ID,
};
use crate::error::{ApiError, CallError};

/// An operation without a body.
fn operation(id: &'static str, summary: &'static str, answer: Value, errors: Vec<ApiError>) -> Operation {
    Operation::without_body(id, Tag::OpenInference, summary, answer, errors)
}

pub(super) fn server(_: &mut Contract<'_>) -> Operation {
    operation("v2Server", "What the server is", answer("The server", &metadata::server_metadata()), vec![])
}

pub(super) fn live(_: &mut Contract<'_>) -> Operation {
    let example = json!({"live": true});
    operation("v2Live", "The process is alive", answer("It is alive", &example), vec![]).with_etag()
}

pub(super) fn ready(_: &mut Contract<'_>) -> Operation {
    let ready = answer("Jobs can be accepted", &json!({"live": true, "ready": true}));
    let mut operation = operation("v2Ready", "The service is ready for traffic", ready, vec![]).with_etag();
    let not = answer("Redis cannot be reached, or the proxy stops", &json!({"live": true, "ready": false}));
    operation.answers.push((503, not));
    operation
}

pub(super) fn list(_: &mut Contract<'_>) -> Operation {
    let names = answer("The names of the models that the caller may use", &json!({"models": ["iris"]}));
    operation("v2Models", "List the models", names, vec![])
}

pub(super) fn index(_: &mut Contract<'_>) -> Operation {
    let entries = json!([metadata::index_entry("iris", "1", true)]);
    let states = answer("The models that the caller may use, and their states", &entries);
    let mut operation = operation("v2RepositoryIndex", "List the models with their states", states, vec![]);
    "A body is ignored.".clone_into(&mut operation.description);
    operation
}

pub(super) fn model(_: &mut Contract<'_>) -> Operation {
    let tensor = |name: &str, length: i64| json!({"name": name, "datatype": "FP32", "shape": [-1, length]});
    let example = json!({
        "name": "iris",
        "versions": ["1"],
        "platform": "tepal",
        "inputs": [tensor("input", 4)],
        "outputs": [tensor("output", 3)],
    });
    operation("v2Model", "What a model takes and returns", answer("The model", &example), vec![]).of_model()
}

pub(super) fn model_ready(_: &mut Contract<'_>) -> Operation {
    let ready = answer("A live worker can call the model", &json!({"name": "iris", "ready": true}));
    let errors = vec![CallError::ModelNotReady.into()];
    operation("v2ModelReady", "Whether a model is ready", ready, errors).of_model()
}

pub(super) fn config(_: &mut Contract<'_>) -> Operation {
    let tensor = |name: &str, length: i64| json!({"name": name, "data_type": "TYPE_FP32", "dims": [length]});
    let example = json!({
        "name": "iris",
        "platform": "tepal",
        "backend": "tepal",
        "max_batch_size": 1024,
        "input": [tensor("input", 4)],
        "output": [tensor("output", 3)],
    });
    let found = answer("The part of Triton's model configuration that clients read", &example);
    operation("v2Config", "The configuration of a model", found, vec![]).of_model()
}

pub(super) fn infer(contract: &mut Contract<'_>) -> Operation {
    let answers = vec![(200, completed()), (202, inference::accepted_answer())];
    let request = json!({
        "required": true,
        "content": {
            "application/json": {"schema": request_schema(), "example": example_request()},
            "application/octet-stream": {
                "schema": {"type": "string", "format": "binary", "description": "JSON, then raw tensors"},
                "example": example_request().to_string(),
            },
        },
    });
    Operation {
        id: "v2Infer",
        tag: Tag::OpenInference,
        summary: "Run a model and wait for the result",
        description: "A durable job whose result is the answer. If the client goes away, the job is cancelled, unless it has an \
            `Idempotency-Key`. With `Prefer: respond-async` the answer comes at once, and names the job. Needs the scope `read` too."
            .to_owned(),
        parameters: vec![idempotency::parameter(), prefer(), json_length()],
        body: Some(request),
        answers,
        errors: inference::errors(contract),
    }
    .of_model()
}

fn json_length() -> Value {
    json!({
        "name": binary::HEADER,
        "in": "header",
        "description": "Bytes of the JSON before the raw tensors; without this header the body is JSON",
        "schema": {"type": "integer", "minimum": 1},
    })
}

fn example_request() -> Value {
    json!({"inputs": [{"name": "input", "shape": [1, 4], "datatype": "FP32", "data": [5.1, 3.5, 1.4, 0.2]}]})
}

/// `null` counts as an omitted member.
fn request_schema() -> Value {
    let tensor = json!({
        "type": "object",
        "required": ["name", "shape", "datatype"],
        "properties": {
            "name": {"type": "string"},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}},
            "datatype": {"enum": DataType::ALL.map(DataType::as_str)},
            "data": {"type": "array", "items": {}, "description": "Flat, or nested as the shape says"},
            "parameters": {"type": ["object", "null"]},
        },
    });
    json!({
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": ["string", "null"], "maxLength": LONGEST_ID},
            "inputs": {"type": "array", "items": tensor, "minItems": 1},
            "outputs": {"type": ["array", "null"], "items": {"type": "object", "required": ["name"]}},
            "parameters": {
                "type": ["object", "null"],
                "properties": {
                    "priority": whole("1 = high; 0 and 2 = normal; others = low"),
                    "timeout": whole("Microseconds for queue and run together; 0 = none"),
                    "binary_data_output": {"type": ["boolean", "null"]},
                },
            },
        },
    })
}

/// A whole number that may be omitted.
fn whole(description: &str) -> Value {
    json!({"type": ["integer", "null"], "minimum": 0, "description": description})
}

fn completed() -> Value {
    let example = json!({
        "model_name": "iris",
        "model_version": "1",
        "outputs": [{"name": "output", "shape": [1, 3], "datatype": "FP32", "data": [0.97, 0.02, 0.01]}],
    });
    let mut completed = answer("The outputs", &example);
    let schema = json!({"type": "string", "format": "binary", "description": "JSON, then raw tensors"});
    completed["content"]["application/octet-stream"] =
        json!({"schema": schema, "example": example.to_string()});
    completed["headers"] = inference::answer_headers();
    completed
}

pub(super) fn version(contract: &mut Contract<'_>) -> Operation {
    model(contract).of_version("v2ModelVersion")
}

pub(super) fn version_ready(contract: &mut Contract<'_>) -> Operation {
    model_ready(contract).of_version("v2ModelVersionReady")
}

pub(super) fn version_config(contract: &mut Contract<'_>) -> Operation {
    config(contract).of_version("v2VersionConfig")
}

pub(super) fn version_infer(contract: &mut Contract<'_>) -> Operation {
    infer(contract).of_version("v2InferVersion")
}
