//! The operations in the contract.

use serde_json::{Value, json};
use tepal_shared::{
    job::JobStatus,
    tensor::{DataType, open_inference::binary},
};

use super::{
    idempotency, metadata,
    openapi::{
        contract::Contract,
        operation::{Operation, Tag},
        parts::{ConcatErrors as _, JOB_ID, applied, prefer, reading_a_body, submitting},
    },
};
use crate::error::{ApiError, CallError};

/// An operation without a body.
fn operation(id: &'static str, summary: &'static str, answer: Value, errors: Vec<ApiError>) -> Operation {
    Operation {
        id,
        tag: Tag::OpenInference,
        summary,
        description: String::new(),
        parameters: vec![],
        body: None,
        answers: vec![(200, answer)],
        errors,
    }
}

fn answer(description: &str, example: &Value) -> Value {
    let schema = json!({"type": if example.is_array() { "array" } else { "object" }});
    json!({"description": description, "content": {"application/json": {"schema": schema, "example": example}}})
}

fn path_parameter(name: &str, description: &str, example: &str) -> Value {
    json!({
        "name": name,
        "in": "path",
        "required": true,
        "description": description,
        "schema": {"type": "string", "minLength": 1},
        "example": example,
    })
}

impl Operation {
    /// The same on a model.
    fn of_model(mut self) -> Self {
        self.parameters.insert(0, path_parameter("name", "The name of a model", "iris"));
        let unknown = ApiError::ModelNotFound { known: "iris".to_owned() };
        self.errors.extend([unknown, ApiError::ModelForbidden, ApiError::ModelUnknownYet]);
        self
    }

    /// The same on a version of a model.
    fn of_version(mut self, id: &'static str) -> Self {
        self.parameters.insert(1, path_parameter("version", "One of the model's versions", "1"));
        self.errors.push(ApiError::VersionNotFound { known: "1".to_owned() });
        Self { id, ..self }
    }
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
    let answers = vec![(200, completed()), (202, accepted())];
    let own: Vec<ApiError> = [
        CallError::Failed { code: "model_error", why: "The model failed".to_owned() },
        CallError::Failed { code: "model_rejected", why: "The model rejected the input".to_owned() },
        CallError::Failed { code: "model_overloaded", why: "The model is overloaded".to_owned() },
        CallError::Failed { code: "timeout", why: "The job took too long".to_owned() },
        CallError::Cancelled,
        CallError::StillRunning,
        CallError::DeadlineExceeded,
    ]
    .map(ApiError::from)
    .into();
    let request = json!({
        "required": true,
        "content": {
            "application/json": {"schema": request_schema(), "example": example_request()},
            "application/octet-stream": {
                "schema": {"type": "string", "format": "binary", "description": "JSON and raw tensors"},
                "example": "{...}",
            },
        },
    });
    let own = [own, vec![ApiError::NotReady, idempotency::malformed(), ApiError::Compressed]].concat_errors();
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
        errors: [own, reading_a_body(contract.largest_body), submitting()].concat_errors(),
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

fn request_schema() -> Value {
    let tensor = json!({
        "type": "object",
        "required": ["name", "shape", "datatype"],
        "properties": {
            "name": {"type": "string"},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}},
            "datatype": {"enum": DataType::ALL.map(DataType::as_str)},
            "data": {"type": "array", "items": {}, "description": "Flat, or nested as the shape says"},
            "parameters": {"type": "object"},
        },
    });
    json!({
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string", "maxLength": 256},
            "inputs": {"type": "array", "items": tensor, "minItems": 1},
            "outputs": {"type": "array", "items": {"type": "object", "required": ["name"]}},
            "parameters": {
                "type": "object",
                "properties": {
                    "priority": {"type": "integer", "minimum": 0, "description": "1 = high; 0 and 2 = normal; others = low"},
                    "timeout": {"type": "integer", "minimum": 0, "description": "Microseconds for queue and run together; 0 = none"},
                    "binary_data_output": {"type": "boolean"},
                },
            },
        },
    })
}

fn headers() -> Value {
    json!({"Tepal-Job-Id": {"description": "The job", "schema": {"type": "string"}}})
}

fn completed() -> Value {
    let mut completed = answer(
        "The outputs",
        &json!({
            "model_name": "iris",
            "model_version": "1",
            "outputs": [{"name": "output", "shape": [1, 3], "datatype": "FP32", "data": [0.97, 0.02, 0.01]}],
        }),
    );
    completed["content"]["application/octet-stream"] =
        json!({"schema": {"type": "string", "format": "binary"}, "example": "{...}"});
    completed["headers"] = headers();
    completed
}

fn accepted() -> Value {
    let status = JobStatus::Pending.as_str();
    let example = json!({"model_name": "iris", "model_version": "1", "job_id": JOB_ID, "status": status});
    let mut accepted = answer("The job is accepted, and the client prefers not to wait", &example);
    accepted["headers"] = headers();
    accepted["headers"]["Preference-Applied"] = applied();
    accepted
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
