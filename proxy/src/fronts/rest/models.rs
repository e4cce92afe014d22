//! `GET /models` and `GET /models/{name}`: what each model takes and returns, its state, and how many jobs wait for it.
//! `DELETE /models/{name}`: forgets a model that nobody serves any more.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};
use tepal_shared::model::{InputSpec, Model, OutputSpec, Shape};
use tracing::info;

use super::openapi::{
    contract::Contract,
    operation::{Operation, Tag},
    parts::{ConcatErrors as _, cannot_persist, reading, unknown_outcome},
};
use crate::{
    edge::{access::Caller, request_id},
    error::ApiError,
    http::answer::json as as_json,
    jobs::models::{Registry, Served},
    snapshot::{ModelQueue, ModelState, Snapshot},
    state::App,
};

/// All models.
#[derive(Serialize, JsonSchema)]
#[schemars(description = "The models that the caller may use")]
struct ModelList<'a> {
    models: Vec<ModelView<'a>>,
}

/// A model.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Model", description = "A model")]
struct ModelView<'a> {
    name: &'a str,
    version: &'a str,
    /// The versions that a submission may pin
    #[serde(skip_serializing_if = "Vec::is_empty")]
    versions: Vec<&'a str>,
    /// Whether submissions that name no model are for this one
    default: bool,
    state: ServedState,
    /// The kind of backend that runs it
    #[serde(skip_serializing_if = "Option::is_none")]
    backend: Option<&'a str>,
    /// Most rows of a job and of a call; 0 = the model has no batch axis, and each job has a call of its own
    max_batch: usize,
    /// Most unfinished jobs in a partition; omitted if there is no limit of the model's own
    #[serde(skip_serializing_if = "Option::is_none")]
    max_queue_depth: Option<u64>,
    /// None of an opaque model, which takes and returns any value
    inputs: Vec<TensorView<'a>>,
    outputs: Vec<TensorView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue: Option<QueueView>,
    /// A valid value of `data`, unless it is too large to show
    #[serde(skip_serializing_if = "Option::is_none")]
    sample: Option<Value>,
    /// JSON Schema of `data`
    #[serde(skip_serializing_if = "Option::is_none")]
    data_schema: Option<Value>,
}

/// Whether jobs of a model run.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
enum ServedState {
    /// A live worker can call it.
    Ok,
    /// No live worker can call it.
    Down,
    /// No live worker serves it.
    Unserved,
    /// The state of the workers is unknown.
    Unknown,
}

/// An input or an output.
#[derive(Serialize, JsonSchema)]
#[schemars(inline)]
struct TensorView<'a> {
    name: &'a str,
    /// As the Open Inference Protocol names it
    datatype: &'a str,
    /// -1 = any length. The batch axis is the first, if the model has one
    shape: Vec<i64>,
}

/// The unfinished jobs of a model.
#[derive(Serialize, JsonSchema)]
#[schemars(inline)]
struct QueueView {
    waiting: u64,
    running: u64,
    /// Time since the oldest waiting job was accepted
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_waiting_seconds: Option<f64>,
    dead_letters: u64,
}

impl QueueView {
    fn of(queue: &ModelQueue) -> Self {
        Self {
            waiting: queue.waiting,
            running: queue.running,
            oldest_waiting_seconds: queue.oldest.map(|age| age.as_secs_f64()),
            dead_letters: queue.dead_letters,
        }
    }
}

impl<'a> TensorView<'a> {
    fn of(name: &'a str, datatype: &'a str, shape: &Shape, model: &Model) -> Self {
        let batch = model.has_batch_axis().then_some(-1);
        let axes = shape.axes().iter().map(|axis| axis.length().map_or(-1, |length| length as i64));
        Self { name, datatype, shape: batch.into_iter().chain(axes).collect() }
    }
}

impl<'a> ModelView<'a> {
    fn of(served: &'a Served, registry: &Registry, snapshot: &'a Snapshot) -> Self {
        let model = &served.description;
        let state = snapshot.workers.as_ref().map(|workers| workers.models.get(served.name.as_str()));
        let input =
            |input: &'a InputSpec| TensorView::of(&input.name, input.datatype.as_str(), &input.shape, model);
        let output = |output: &'a OutputSpec| {
            TensorView::of(&output.name, output.datatype.as_str(), &output.shape, model)
        };
        Self {
            name: served.name.as_str(),
            version: &model.version,
            versions: served.versions(),
            default: registry.default_model() == Some(served.name),
            state: ServedState::of(state),
            backend: state.flatten().map(|state| state.backend.as_str()),
            max_batch: model.max_batch,
            max_queue_depth: Some(model.max_queue_depth).filter(|limit| *limit > 0),
            inputs: model.client_inputs().iter().map(input).collect(),
            outputs: model.client_outputs().map(output).collect(),
            queue: snapshot.queues.get(&served.name).map(QueueView::of),
            sample: None,
            data_schema: None,
        }
    }

    /// The same with what only the answer about one model contains.
    fn in_full(self, served: &Served) -> Self {
        let model = &served.description;
        Self { sample: model.shown_sample(), data_schema: Some(model.data_schema()), ..self }
    }
}

impl ServedState {
    /// From what the live workers report: `None` if that is unknown, `Some(None)` if none serves the model.
    fn of(state: Option<Option<&ModelState>>) -> Self {
        match state {
            None => Self::Unknown,
            Some(None) => Self::Unserved,
            Some(Some(state)) if state.is_ok => Self::Ok,
            Some(Some(_)) => Self::Down,
        }
    }
}

/// All models that the caller may use.
pub(crate) async fn list(State(app): State<Arc<App>>, caller: Caller) -> Response {
    let (registry, snapshot) = (app.models.registry(), app.snapshot());
    let allowed = registry.iter().filter(|served| caller.may_use(served.name.as_str()));
    let models = allowed.map(|served| ModelView::of(served, &registry, &snapshot)).collect();
    as_json(text(&ModelList { models }))
}

/// One model.
pub(crate) async fn show(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    let (registry, snapshot) = (app.models.registry(), app.snapshot());
    let served = registry.find(&name)?;
    caller.check_model(served.name.as_str())?;
    Ok(as_json(text(&ModelView::of(&served, &registry, &snapshot).in_full(&served))))
}

/// Forgets a model that nobody serves any more. Its jobs stay as they are.
pub(crate) async fn remove(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let served = app.models.registry().find(&name)?;
    let name = served.name;
    caller.check_model(name.as_str())?;
    // Not the last snapshot: a worker that has just started would lose its description.
    let workers = app.store.views.workers().await?;
    if app.models.is_own(name) || workers.iter().any(|worker| worker.serves(name.as_str())) {
        return Err(ApiError::ModelInUse);
    }
    app.store.views.unpublish(name).await.map_err(ApiError::of_change)?;
    app.models.remove(name);
    let (request_id, key_id) = (request_id::of(&headers), caller.key_id());
    info!(action = "model_removed", model = name.as_str(), request_id, key_id);
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn text(value: &impl Serialize) -> String {
    // Serialising these types cannot fail: their keys are strings.
    serde_json::to_string(value).unwrap_or_default()
}

/// A model for the contract.
fn example() -> Value {
    json!({
        "name": "iris",
        "version": "1",
        "versions": ["1"],
        "default": true,
        "state": "ok",
        "backend": "onnx",
        "max_batch": 1024,
        "inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "output", "datatype": "FP32", "shape": [-1, 3]}],
        "queue": {"waiting": 0, "running": 0, "dead_letters": 0},
    })
}

/// Describes it for the contract.
pub(super) fn list_operation(contract: &mut Contract<'_>) -> Operation {
    let answer = contract.answer_like::<ModelList<'_>>("The models", &json!({"models": [example()]}));
    Operation {
        id: "listModels",
        tag: Tag::Service,
        summary: "The models",
        description: "The models that a submission may name, as of the last second.".to_owned(),
        parameters: vec![],
        body: None,
        answers: vec![(200, answer)],
        errors: vec![ApiError::NotAcceptable],
    }
}

/// Describes it for the contract.
pub(super) fn show_operation(contract: &mut Contract<'_>) -> Operation {
    let mut model = example();
    model["sample"] = json!([[5.1, 3.5, 1.4, 0.2]]);
    model["data_schema"] = json!({"type": "array"});
    let answer = contract.answer_like::<ModelView<'_>>("The model", &model);
    Operation {
        id: "showModel",
        tag: Tag::Service,
        summary: "A model",
        description: "Its inputs and outputs, a JSON Schema of its `data`, its state, and its queue."
            .to_owned(),
        parameters: vec![name_parameter()],
        body: None,
        answers: vec![(200, answer)],
        errors: vec![
            ApiError::NotAcceptable,
            ApiError::ModelForbidden,
            ApiError::ModelNotFound { known: "iris".to_owned() },
            ApiError::ModelUnknownYet,
        ],
    }
}

/// Describes it for the contract.
pub(super) fn remove_operation(_: &mut Contract<'_>) -> Operation {
    Operation {
        id: "removeModel",
        tag: Tag::Service,
        summary: "Forget a model",
        description:
            "Removes the description of a model that nobody serves any more. Its jobs stay as they are."
                .to_owned(),
        parameters: vec![name_parameter()],
        body: None,
        answers: vec![(204, json!({"description": "The model is forgotten"}))],
        errors: [
            vec![
                ApiError::NotAcceptable,
                ApiError::ModelForbidden,
                ApiError::ModelNotFound { known: "iris".to_owned() },
                ApiError::ModelUnknownYet,
                ApiError::ModelInUse,
                cannot_persist(),
                unknown_outcome(),
            ],
            reading(),
        ]
        .concat_errors(),
    }
}

fn name_parameter() -> Value {
    json!({
        "name": "name",
        "in": "path",
        "required": true,
        "description": "The name of a model",
        "schema": {"type": "string", "minLength": 1},
        "example": "iris",
    })
}
