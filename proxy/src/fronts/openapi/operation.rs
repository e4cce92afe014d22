//! One operation of the contract: what it takes and answers.

use serde_json::{Value, json};

use super::parts::{etag, if_none_match};
use crate::error::ApiError;

/// The group that an operation belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tag {
    Jobs,
    OpenInference,
    TensorFlowServing,
    Service,
}

impl Tag {
    pub(super) const ALL: [Self; 4] =
        [Self::Jobs, Self::OpenInference, Self::TensorFlowServing, Self::Service];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Jobs => "jobs",
            Self::OpenInference => "open inference",
            Self::TensorFlowServing => "tensorflow serving",
            Self::Service => "service",
        }
    }

    pub(super) fn description(self) -> &'static str {
        match self {
            Self::Jobs => "Submitting, reading and ending jobs",
            Self::OpenInference => "The Open Inference Protocol, version 2",
            Self::TensorFlowServing => "TensorFlow Serving's REST API, and version 1 of KServe's protocol",
            Self::Service => "The model and the state of the service",
        }
    }
}

/// What one operation takes and answers.
pub(crate) struct Operation {
    pub(crate) id: &'static str,
    pub(crate) tag: Tag,
    pub(crate) summary: &'static str,
    pub(crate) description: String,
    pub(crate) parameters: Vec<Value>,
    pub(crate) body: Option<Value>,
    /// Status and OpenAPI response object of each success.
    pub(crate) answers: Vec<(u16, Value)>,
    /// One error of each kind, in addition to those of all operations.
    pub(crate) errors: Vec<ApiError>,
}

/// An answer of JSON with this example.
pub(crate) fn answer(description: &str, example: &Value) -> Value {
    let schema = json!({"type": if example.is_array() { "array" } else { "object" }});
    json!({"description": description, "content": {"application/json": {"schema": schema, "example": example}}})
}

/// A part of the path.
pub(crate) fn path_parameter(name: &str, description: &str, example: &str) -> Value {
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
    /// An operation that takes no body and answers 200.
    pub(crate) fn without_body(
        id: &'static str,
        tag: Tag,
        summary: &'static str,
        answer: Value,
        errors: Vec<ApiError>,
    ) -> Self {
        let (description, parameters, body) = Default::default();
        Self { id, tag, summary, description, parameters, body, answers: vec![(200, answer)], errors }
    }

    /// The same on a model.
    pub(crate) fn of_model(mut self) -> Self {
        self.parameters.insert(0, path_parameter("name", "The name of a model", "iris"));
        let unknown = ApiError::ModelNotFound { known: "iris".to_owned() };
        self.errors.extend([unknown, ApiError::ModelForbidden, ApiError::ModelUnknownYet]);
        self
    }

    /// The same on a version of a model.
    pub(crate) fn of_version(mut self, id: &'static str) -> Self {
        self.parameters.insert(1, path_parameter("version", "One of the model's versions", "1"));
        self.errors.push(ApiError::VersionNotFound { known: "1".to_owned() });
        Self { id, ..self }
    }

    /// Adds an `ETag` to the answer, for clients that have the answer already: see `http::kept`.
    pub(crate) fn with_etag(mut self) -> Self {
        self.parameters.push(if_none_match("An ETag of this answer", "\"5f2d0e7c9b1a4c3d8e6f7a90\""));
        for (_, answer) in self.answers.iter_mut().filter(|(status, _)| *status == 200) {
            answer["headers"] = json!({"ETag": etag("Names this answer")});
        }
        self.answers.push((
            304,
            json!({
                "description": "The client has this answer already",
                "headers": {"ETag": etag("Names this answer")},
            }),
        ));
        self
    }
}

/// An operation that answers with text.
pub(crate) fn text(
    id: &'static str,
    summary: &'static str,
    media_type: &str,
    example: &str,
    errors: Vec<ApiError>,
) -> Operation {
    let answer = json!({
        "description": summary,
        "content": {media_type: {"schema": {"type": "string"}, "example": example}},
    });
    Operation {
        id,
        tag: Tag::Service,
        summary,
        description: String::new(),
        parameters: vec![],
        body: None,
        answers: vec![(200, answer)],
        errors,
    }
    .with_etag()
}
