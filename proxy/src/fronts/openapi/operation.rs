//! One operation of the contract: what it takes and answers.

use serde_json::{Value, json};

use super::parts::{etag, if_none_match};
use crate::error::ApiError;

/// The group that an operation belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tag {
    Jobs,
    OpenInference,
    Service,
}

impl Tag {
    pub(super) const ALL: [Self; 3] = [Self::Jobs, Self::OpenInference, Self::Service];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Jobs => "jobs",
            Self::OpenInference => "open inference",
            Self::Service => "service",
        }
    }

    pub(super) fn description(self) -> &'static str {
        match self {
            Self::Jobs => "Submitting, reading and ending jobs",
            Self::OpenInference => "The Open Inference Protocol, version 2",
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

impl Operation {
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
