//! The contract of the API as OpenAPI 3.1, made from what the code works with: the route table, the errors, the limits
//! and the model's description. An operation cannot be routed without being described here.

mod operations;
mod parts;
mod schemas;

use axum::http::Method;
use serde_json::{Map, Value, json};
use tepal_shared::model::Model;

use self::parts::{etag, if_none_match};
pub(crate) use self::{operations::*, parts::wrong_topology};
use crate::{
    edge::{
        access::{Scope, Scopes},
        rate_limit::{Excess, Policy},
    },
    error::ApiError,
};

/// One operation and where it is.
pub(crate) struct Route {
    pub(crate) path: &'static str,
    pub(crate) method: Method,
    /// What a caller must be allowed; `None` when everybody may call it, any number of times.
    pub(crate) scope: Option<Scope>,
    pub(crate) operation: Operation,
}

/// What one operation takes and answers.
pub(crate) struct Operation {
    id: &'static str,
    summary: &'static str,
    description: String,
    parameters: Vec<Value>,
    body: Option<Value>,
    /// Status and OpenAPI response object of each success.
    answers: Vec<(u16, Value)>,
    /// One of each kind that it may fail with, beside those that every operation may.
    errors: Vec<ApiError>,
}

impl Operation {
    /// The operation with an answer that has an `ETag`, for clients that have it already: see `http::kept`.
    fn with_tag(mut self) -> Self {
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

/// The name of the way to show a key.
const SCHEME: &str = "apiKey";
/// What every operation may answer.
static EVERYWHERE: [ApiError; 5] = [
    ApiError::MalformedRequest,
    ApiError::UriTooLong,
    ApiError::HeadersTooLarge,
    ApiError::Panicked,
    ApiError::UnknownTransferCoding,
];
/// What an operation may answer that is not for everybody.
static GUARDED: [ApiError; 2] = [
    ApiError::Unauthorized,
    ApiError::RateLimited(Excess { policy: Policy::Address, cost: 1, retry_after: 1 }),
];
/// By the scope that is missing.
static INSUFFICIENT: [(Scope, ApiError); 2] = [
    (Scope::Read, ApiError::InsufficientScope(Scope::Read)),
    (Scope::Submit, ApiError::InsufficientScope(Scope::Submit)),
];

/// What the contract says of this service in particular.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deployment<'a> {
    /// Where clients reach it; `None` = where they read the contract.
    pub(crate) public_url: Option<&'a str>,
    /// What callers without a key may do; `None` = there are no keys.
    pub(crate) anonymous: Option<Scopes>,
}

/// The whole document.
pub(crate) fn document(model: &Model, routes: &[Route], deployment: Deployment<'_>) -> Value {
    let mut paths = Map::new();
    for route in routes {
        let item = paths.entry(route.path).or_insert_with(|| json!({}));
        item[route.method.as_str().to_ascii_lowercase()] = route.render(deployment.anonymous);
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
        "servers": [{"url": deployment.public_url.unwrap_or("/")}],
        "tags": [
            {"name": "jobs", "description": "Submitting, reading and ending jobs"},
            {"name": "service", "description": "The model and the state of the service"},
        ],
        "paths": paths,
        "components": {
            "schemas": schemas::all(model),
            "examples": examples(routes),
            "securitySchemes": {SCHEME: {
                "type": "apiKey",
                "in": "header",
                "name": "X-API-Key",
                "description": "Each operation that needs a key names the scope that it must have; `admin` has all of \
                    them. Where the service has no keys, no operation names one.",
            }},
        },
    })
}

/// One example for each kind of problem, by its code.
fn examples(routes: &[Route]) -> Map<String, Value> {
    let mut examples = Map::new();
    let errors = |route| Route::errors(route).map(move |error| (route.path, error));
    for (path, error) in routes.iter().flat_map(errors) {
        examples.entry(error.code()).or_insert_with(|| {
            let instance = path.replace("{id}", parts::JOB_ID);
            let problem = error.problem(&instance, parts::REQUEST_ID);
            json!({"value": serde_json::from_slice::<Value>(&problem).unwrap_or_default()})
        });
    }
    examples
}

impl Route {
    fn render(&self, anonymous: Option<Scopes>) -> Value {
        let (path, it) = (self.path, &self.operation);
        let is_job = path.starts_with("/job") || path.starts_with("/predict");
        let mut responses = Map::new();
        for (status, answer) in &it.answers {
            responses.insert(status.to_string(), with_request_id(answer.clone()));
        }
        for (status, answer) in self.problems() {
            responses.entry(status.to_string()).or_insert(answer);
        }
        let mut operation = json!({
            "operationId": it.id,
            "summary": it.summary,
            "description": it.description,
            "tags": [if is_job { "jobs" } else { "service" }],
            "parameters": it.parameters,
            "responses": responses,
        });
        if let Some((scope, anonymous)) = self.scope.zip(anonymous) {
            let key = json!({SCHEME: [scope.as_str()]});
            // The second alternative is none at all.
            operation["security"] = if anonymous.allow(scope) { json!([key, {}]) } else { json!([key]) };
        }
        if let Some(body) = &it.body {
            operation["requestBody"] = body.clone();
        }
        operation
    }

    /// Its own errors, then those that every operation may answer.
    fn errors(&self) -> impl Iterator<Item = &ApiError> {
        let guarded = self.scope.iter().flat_map(|_| &GUARDED);
        let insufficient = INSUFFICIENT.iter().filter(|(scope, _)| Some(*scope) == self.scope);
        let insufficient = insufficient.map(|(_, error)| error);
        self.operation.errors.iter().chain(&EVERYWHERE).chain(guarded).chain(insufficient)
    }

    /// Status and response object of each kind of failure, with an example for each code.
    fn problems(&self) -> Vec<(u16, Value)> {
        let mut by_status: Vec<(u16, Vec<&ApiError>)> = Vec::new();
        for error in self.errors() {
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
    if errors.iter().any(|error| matches!(error, ApiError::Unauthorized)) {
        response["headers"] = json!({
            "WWW-Authenticate": {"description": "How to show who one is", "schema": {"type": "string"}},
        });
    }
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
