//! The contract of the API as OpenAPI 3.1, made from the route table, the errors and the limits. The forms of the models'
//! inputs are not part of it: see `GET /models/{name}`. An
//! operation cannot be routed without a description.

pub(super) mod contract;
pub(super) mod operation;
pub(super) mod parts;
pub(crate) mod public_url;

use axum::http::Method;
use serde_json::{Map, Value, json};

use self::{
    contract::Contract,
    operation::{Operation, Tag},
};
use crate::{
    edge::access::{Scope, Scopes},
    error::{ApiError, ErrorForm, ErrorMember, Problem},
};

/// One operation and its path.
pub(super) struct Route {
    pub(super) path: &'static str,
    pub(super) method: Method,
    /// The scopes that it requires; none if it is open to everybody and not counted.
    pub(super) scopes: &'static [Scope],
    pub(super) operation: Operation,
}

/// The name of the security scheme.
const SCHEME: &str = "apiKey";
/// The errors of every operation.
static EVERYWHERE: [ApiError; 5] = [
    ApiError::MalformedRequest,
    ApiError::UriTooLong,
    ApiError::HeadersTooLarge,
    ApiError::Panicked,
    ApiError::UnknownTransferCoding,
];
/// The errors of operations that require a scope.
static GUARDED: [ApiError; 2] =
    [ApiError::Unauthorized, ApiError::RateLimited { whose: "from this address", cost: 1, retry_after: 1 }];
/// The error of each missing scope.
static INSUFFICIENT: [(Scope, ApiError); 2] = [
    (Scope::Read, ApiError::InsufficientScope(Scope::Read.as_str())),
    (Scope::Submit, ApiError::InsufficientScope(Scope::Submit.as_str())),
];

/// The parts of the contract that depend on the deployment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deployment<'a> {
    /// The URL of the API; `None` = the URL of the contract itself.
    pub(crate) public_url: Option<&'a str>,
    /// The scopes of callers without a key; `None` = there are no keys.
    pub(crate) anonymous: Option<Scopes>,
}

/// The whole document.
pub(super) fn document(mut contract: Contract<'_>, routes: &[Route], deployment: Deployment<'_>) -> Value {
    let schemas = ErrorSchemas {
        problem: contract.schema::<Problem<'_>>(),
        member: contract.schema::<ErrorMember<'_>>(),
    };
    let mut paths = Map::new();
    for route in routes {
        let item = paths.entry(route.path).or_insert_with(|| json!({}));
        item[route.method.as_str().to_ascii_lowercase()] = route.render(deployment.anonymous, &schemas);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Tepal",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "A durable asynchronous inference gateway. A client posts its input and gets a job id at \
                once; workers run the job in batches; the result is kept and read by the id. Every error is an RFC 9457 \
                problem whose `code` does not change; the paths of the Open Inference Protocol have its form of errors.",
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "servers": [{"url": deployment.public_url.unwrap_or("/")}],
        "tags": Tag::ALL.map(|tag| json!({"name": tag.as_str(), "description": tag.description()})),
        "paths": paths,
        "components": {
            "schemas": contract.into_schemas(),
            "examples": examples(routes),
            "securitySchemes": {SCHEME: {
                "type": "apiKey",
                "in": "header",
                "name": "X-API-Key",
                "description": "Each operation names the scope that its key must have; `admin` includes all of \
                    them. Without API keys, no operation names one.",
            }},
        },
    })
}

/// Describes the document itself.
pub(super) fn contract_operation(_: &mut Contract<'_>) -> Operation {
    let answer = json!({
        "description": "OpenAPI 3.1",
        "content": {"application/json": {"schema": {"type": "object"}, "example": {"openapi": "3.1.0"}}},
    });
    Operation {
        id: "contract",
        tag: Tag::Service,
        summary: "This document",
        description: String::new(),
        parameters: vec![],
        body: None,
        answers: vec![(200, answer)],
        errors: vec![ApiError::NotAcceptable],
    }
    .with_etag()
}

/// One example for each kind of error in each form.
fn examples(routes: &[Route]) -> Map<String, Value> {
    let mut examples = Map::new();
    for (path, error) in routes.iter().flat_map(|route| route.errors().map(|error| (route.path, error))) {
        let form = ErrorForm::of(path);
        examples.entry(example_name(form, error)).or_insert_with(|| {
            let instance = path.replace("{id}", parts::JOB_ID).replace("{name}", "iris");
            let text = match form {
                ErrorForm::Problem => error.problem(&instance, parts::REQUEST_ID),
                ErrorForm::Member | ErrorForm::Grpc => {
                    return json!({"value": error.member(parts::REQUEST_ID)});
                }
            };
            json!({"value": serde_json::from_slice::<Value>(&text).unwrap_or_default()})
        });
    }
    examples
}

fn example_name(form: ErrorForm, error: &ApiError) -> String {
    match form {
        ErrorForm::Problem => error.code().to_owned(),
        ErrorForm::Member | ErrorForm::Grpc => format!("{}_as_member", error.code()),
    }
}

/// The schema of each form of an error.
struct ErrorSchemas {
    problem: Value,
    member: Value,
}

impl Route {
    fn render(&self, anonymous: Option<Scopes>, schemas: &ErrorSchemas) -> Value {
        let it = &self.operation;
        let mut responses = Map::new();
        for (status, answer) in &it.answers {
            responses.insert(status.to_string(), with_request_id(answer.clone()));
        }
        for (status, answer) in self.problems(schemas) {
            responses.entry(status.to_string()).or_insert(answer);
        }
        let mut operation = json!({
            "operationId": it.id,
            "summary": it.summary,
            "description": it.description,
            "tags": [it.tag.as_str()],
            "parameters": it.parameters,
            "responses": responses,
        });
        if let Some(anonymous) = anonymous.filter(|_| !self.scopes.is_empty()) {
            let names: Vec<_> = self.scopes.iter().map(|scope| scope.as_str()).collect();
            let key = json!({SCHEME: names});
            // The second alternative is no key at all.
            let is_open = self.scopes.iter().all(|scope| anonymous.allow(*scope));
            operation["security"] = if is_open { json!([key, {}]) } else { json!([key]) };
        }
        if let Some(body) = &it.body {
            operation["requestBody"] = body.clone();
        }
        operation
    }

    /// Its own errors, then those that every operation may answer.
    fn errors(&self) -> impl Iterator<Item = &ApiError> {
        let guarded = self.scopes.first().into_iter().flat_map(|_| &GUARDED);
        let insufficient = INSUFFICIENT.iter().filter(|(scope, _)| self.scopes.contains(scope));
        let insufficient = insufficient.map(|(_, error)| error);
        self.operation.errors.iter().chain(&EVERYWHERE).chain(guarded).chain(insufficient)
    }

    /// Status and response object of each kind of failure, with an example for each code.
    fn problems(&self, schemas: &ErrorSchemas) -> Vec<(u16, Value)> {
        let form = ErrorForm::of(self.path);
        let mut by_status: Vec<(u16, Vec<&ApiError>)> = Vec::new();
        for error in self.errors() {
            let status = error.status_in(form).as_u16();
            match by_status.iter_mut().find(|(known, _)| *known == status) {
                Some((_, errors)) if errors.iter().any(|known| known.code() == error.code()) => {}
                Some((_, errors)) => errors.push(error),
                None => by_status.push((status, vec![error])),
            }
        }
        by_status.sort_by_key(|(status, _)| *status);
        let response =
            |(status, errors): (u16, Vec<&ApiError>)| (status, error_response(form, schemas, &errors));
        by_status.into_iter().map(response).collect()
    }
}

fn error_response(form: ErrorForm, schemas: &ErrorSchemas, errors: &[&ApiError]) -> Value {
    let codes: Vec<&str> = errors.iter().map(|error| error.code()).collect();
    let (media_type, schema) = match form {
        ErrorForm::Problem => ("application/problem+json", &schemas.problem),
        // The contract describes HTTP only.
        ErrorForm::Member | ErrorForm::Grpc => ("application/json", &schemas.member),
    };
    let example = |error: &&ApiError| {
        let reference = format!("#/components/examples/{}", example_name(form, error));
        (error.code().to_owned(), json!({"$ref": reference}))
    };
    let examples: Map<_, _> = errors.iter().map(example).collect();
    let schema = json!({"allOf": [schema, {"properties": {"code": {"enum": codes}}}]});
    let content = json!({media_type: {"schema": schema, "examples": examples}});
    let mut response = json!({"description": format!("Problem: {}", codes.join(", ")), "content": content});
    if errors.iter().any(|error| matches!(error, ApiError::Unauthorized)) {
        response["headers"] = json!({
            "WWW-Authenticate": {"description": "How to authenticate", "schema": {"type": "string"}},
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
