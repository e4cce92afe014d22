//! The operations in the contract.

use serde_json::{Value, json};

use super::{
    idempotency, inference,
    openapi::{
        contract::Contract,
        operation::{Operation, Tag, answer, path_parameter},
        parts::{body, prefer},
    },
    status,
    table::{Describe, Described},
};
use crate::error::{ApiError, CallError};

/// The operations on a model, a version or a label.
#[derive(Clone, Copy)]
pub(super) struct Operations {
    pub(super) status: Describe,
    pub(super) metadata: Describe,
    pub(super) predict: Described,
    pub(super) classify: Described,
}

pub(super) const OF_MODEL: Operations = Operations {
    status: |_| status("v1Status").of_model(),
    metadata: |_| metadata("v1Metadata").of_model(),
    predict: ("/v1/models/{name}:predict", |contract| predict("v1Predict", contract).of_model()),
    classify: ("/v1/models/{name}:classify", |contract| classify("v1Classify", contract).of_model()),
};

pub(super) const OF_VERSION: Operations = Operations {
    status: |_| status("").of_model().of_version("v1VersionStatus"),
    metadata: |_| metadata("").of_model().of_version("v1VersionMetadata"),
    predict: ("/v1/models/{name}/versions/{version}:predict", |contract| {
        predict("", contract).of_model().of_version("v1PredictVersion")
    }),
    classify: ("/v1/models/{name}/versions/{version}:classify", |contract| {
        classify("", contract).of_model().of_version("v1ClassifyVersion")
    }),
};

pub(super) const OF_LABEL: Operations = Operations {
    status: |_| of_label(status("v1LabelStatus")),
    metadata: |_| of_label(metadata("v1LabelMetadata")),
    predict: ("/v1/models/{name}/labels/{label}:predict", |contract| {
        of_label(predict("v1PredictLabel", contract))
    }),
    classify: ("/v1/models/{name}/labels/{label}:classify", |contract| {
        of_label(classify("v1ClassifyLabel", contract))
    }),
};

fn of_label(operation: Operation) -> Operation {
    let mut operation = operation.of_model();
    let parameter = path_parameter("label", "The `version_label` of the model's description", "stable");
    operation.parameters.insert(1, parameter);
    operation.errors.push(CallError::NoSuchLabel { known: None }.into());
    operation
}

fn reading(id: &'static str, summary: &'static str, answer: Value, errors: Vec<ApiError>) -> Operation {
    Operation::without_body(id, Tag::TensorFlowServing, summary, answer, errors)
}

pub(super) fn list(_: &mut Contract<'_>) -> Operation {
    reading(
        "v1Models",
        "List the models",
        answer("The models that the caller may use", &status::model_list(&["iris"])),
        vec![],
    )
}

fn status(id: &'static str) -> Operation {
    let example = status::model_status("iris", &["1"], true);
    // What follows a colon is a verb, and there is none for GET.
    reading(
        id,
        "The states of a model's versions",
        answer("The states", &example),
        vec![ApiError::NoSuchPath],
    )
}

fn metadata(id: &'static str) -> Operation {
    let dim = |size: &str| json!({"size": size, "name": ""});
    let info = |name: &str, length: &str| {
        let shape = json!({"dim": [dim("-1"), dim(length)], "unknown_rank": false});
        json!({name: {"dtype": "DT_FLOAT", "tensor_shape": shape, "name": name}})
    };
    let signature = json!({
        "inputs": info("input", "4"),
        "outputs": info("output", "3"),
        "method_name": "tensorflow/serving/predict",
    });
    let example = json!({
        "model_spec": {"name": "iris", "signature_name": "", "version": "1"},
        "metadata": {"signature_def": {"signature_def": {"serving_default": signature}}},
    });
    reading(id, "The signature of a model", answer("The signature", &example), vec![])
}

/// An operation that waits for a job.
fn waiting(
    id: &'static str,
    summary: &'static str,
    request: Value,
    result: &Value,
    contract: &Contract<'_>,
) -> Operation {
    let mut completed = answer("The outputs", result);
    completed["headers"] = inference::answer_headers();
    Operation {
        id,
        tag: Tag::TensorFlowServing,
        summary,
        description: "A durable job whose result is the answer. If the client goes away, the job is cancelled, unless it has an \
            `Idempotency-Key`. With `Prefer: respond-async` the answer comes at once, and names the job. Needs the scope `read` too."
            .to_owned(),
        parameters: vec![idempotency::parameter(), prefer()],
        body: Some(request),
        answers: vec![(200, completed), (202, inference::accepted_answer())],
        errors: inference::errors(contract),
    }
}

fn predict(id: &'static str, contract: &Contract<'_>) -> Operation {
    let schema = json!({
        "type": "object",
        "oneOf": [{"required": ["instances"]}, {"required": ["inputs"]}],
        "properties": {
            "signature_name": signature(),
            "instances": {"type": "array", "minItems": 1, "description": "Rows; the answer has `predictions`"},
            "inputs": {"description": "Whole tensors; the answer has `outputs`"},
        },
    });
    let request = body(&schema, &json!({"instances": [[5.1, 3.5, 1.4, 0.2]]}));
    let result = json!({"predictions": [[0.97, 0.02, 0.01]]});
    waiting(id, "Run a model and wait for the result", request, &result, contract)
}

fn classify(id: &'static str, contract: &Contract<'_>) -> Operation {
    let schema = json!({
        "type": "object",
        "required": ["examples"],
        "properties": {
            "signature_name": signature(),
            "context": {"type": "object", "description": "What the examples have in common"},
            "examples": {
                "type": "array",
                "minItems": 1,
                "items": {"type": "object"},
                "description": "Objects with a value for each input, or for each feature of the only input",
            },
        },
    });
    let request = body(&schema, &json!({"examples": [{"input": [5.1, 3.5, 1.4, 0.2]}]}));
    let result = json!({"results": [[["setosa", 0.97], ["versicolor", 0.02], ["virginica", 0.01]]]});
    waiting(id, "Classify examples with a model that has labels", request, &result, contract)
}

fn signature() -> Value {
    json!({"type": "string", "description": "The signature of the model"})
}
