//! The contract of the API as OpenAPI 3.1, made from what the code works with: the route table, the errors, the limits
//! and the model's description. An operation cannot be routed without being described here.

mod operations;
mod parts;
mod schemas;

use serde_json::{Map, Value, json};
use tepal_shared::model::Model;

pub(crate) use self::operations::*;
use crate::{error::ApiError, rate_limit};

/// What one operation takes and answers.
pub(crate) struct Operation {
    id: &'static str,
    summary: &'static str,
    description: &'static str,
    parameters: Vec<Value>,
    body: Option<Value>,
    /// Status and OpenAPI response object of each success.
    answers: Vec<(u16, Value)>,
    /// One of each kind that it may fail with, beside those that every operation may.
    errors: Vec<ApiError>,
}

/// What every operation may answer.
static EVERYWHERE: [ApiError; 3] =
    [ApiError::MalformedRequest, ApiError::UriTooLong, ApiError::HeadersTooLarge];
static LIMITED: ApiError = ApiError::RateLimited(1);

/// The whole document. `table` holds path, method in lower case and operation.
pub(crate) fn document(model: &Model, table: &[(&'static str, &'static str, Operation)]) -> Value {
    let mut paths = Map::new();
    for (path, method, operation) in table {
        let item = paths.entry(*path).or_insert_with(|| json!({}));
        item[*method] = operation.render(path);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Tepal",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "A durable asynchronous inference gateway. A client posts its input and gets a job id at \
                once; workers run the job in batches; the result is kept and read by the id. Every error is an RFC 9457 \
                problem whose `code` does not change.",
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [
            {"name": "jobs", "description": "Submitting, reading and ending jobs"},
            {"name": "service", "description": "The model and the state of the service"},
        ],
        "paths": paths,
        "components": {"schemas": schemas::all(model), "examples": examples(table)},
    })
}

/// One example for each kind of problem, by its code.
fn examples(table: &[(&'static str, &'static str, Operation)]) -> Map<String, Value> {
    let mut examples = Map::new();
    for (path, error) in table
        .iter()
        .flat_map(|(path, _, operation)| operation.errors_at(path).map(move |error| (path, error)))
    {
        examples.entry(error.code()).or_insert_with(|| {
            let instance = path.replace("{id}", parts::JOB_ID);
            let problem = error.problem(&instance, parts::REQUEST_ID);
            json!({"value": serde_json::from_slice::<Value>(&problem).unwrap_or_default()})
        });
    }
    examples
}

impl Operation {
    fn render(&self, path: &str) -> Value {
        let is_job = path.starts_with("/job") || path.starts_with("/predict");
        let mut responses = Map::new();
        for (status, answer) in &self.answers {
            responses.insert(status.to_string(), with_request_id(answer.clone()));
        }
        for (status, answer) in self.problems(path) {
            responses.entry(status.to_string()).or_insert(answer);
        }
        let mut operation = json!({
            "operationId": self.id,
            "summary": self.summary,
            "description": self.description,
            "tags": [if is_job { "jobs" } else { "service" }],
            "parameters": self.parameters,
            "responses": responses,
        });
        if let Some(body) = &self.body {
            operation["requestBody"] = body.clone();
        }
        operation
    }

    /// Its own errors, then those that every operation may answer.
    fn errors_at(&self, path: &str) -> impl Iterator<Item = &ApiError> {
        let limited = rate_limit::is_limited(path).then_some(&LIMITED);
        self.errors.iter().chain(&EVERYWHERE).chain(limited)
    }

    /// Status and response object of each kind of failure, with an example for each code.
    fn problems(&self, path: &str) -> Vec<(u16, Value)> {
        let mut by_status: Vec<(u16, Vec<&ApiError>)> = Vec::new();
        for error in self.errors_at(path) {
            match by_status.iter_mut().find(|(status, _)| *status == error.status()) {
                Some((_, errors)) if errors.iter().any(|known| known.code() == error.code()) => {}
                Some((_, errors)) => errors.push(error),
                None => by_status.push((error.status(), vec![error])),
            }
        }
        by_status.sort_by_key(|(status, _)| *status);
        let response = |(status, errors): (u16, Vec<&ApiError>)| (status, problem_response(&errors));
        by_status.into_iter().map(response).collect()
    }
}

fn problem_response(errors: &[&ApiError]) -> Value {
    let codes: Vec<&str> = errors.iter().map(|error| error.code()).collect();
    let mut examples = Map::new();
    for code in &codes {
        examples.insert((*code).to_owned(), json!({"$ref": format!("#/components/examples/{code}")}));
    }
    let mut response = json!({
        "description": format!("Problem: {}", codes.join(", ")),
        "content": {"application/problem+json": {
            "schema": {
                "allOf": [{"$ref": "#/components/schemas/Problem"}, {"properties": {"code": {"enum": codes}}}],
            },
            "examples": examples,
        }},
    });
    if errors.iter().any(|error| error.retry_after().is_some()) {
        response["headers"] = json!({
            "Retry-After": {"description": "Seconds to wait before trying again", "schema": {"type": "integer"}},
        });
    }
    with_request_id(response)
}

fn with_request_id(mut response: Value) -> Value {
    let header =
        json!({"description": "Identifies the request in the service's log", "schema": {"type": "string"}});
    response["headers"]["X-Request-Id"] = header;
    response
}
