//! `/health` for people and monitoring, `/livez` and `/readyz` for orchestrators, `/metrics` for Prometheus.

use std::{
    collections::BTreeMap,
    fmt::Display,
    sync::{Arc, LazyLock},
};

use axum::{extract::State, http::HeaderMap, response::Response};
use schemars::JsonSchema;
use serde::{Serialize, Serializer};
use tepal_shared::{job::ModelName, queue::error::StoreError};

use super::openapi::{
    contract::Contract,
    operation::{Operation, Tag, text},
    parts::wrong_topology,
};
use crate::{
    error::ApiError,
    http::{answer::json, kept::Kept},
    jobs::{
        known_models::Models,
        models::{Registry, Served},
    },
    snapshot::{ComponentState, Snapshot, Trouble, Workers},
    state::App,
};

static OK: LazyLock<Kept> = LazyLock::new(|| Kept::new("ok", "text/plain; charset=utf-8"));

/// The state of all components.
#[derive(Serialize, JsonSchema)]
#[schemars(description = "The state of each component")]
struct Health<'a> {
    status: HealthStatus,
    #[serde(serialize_with = "as_map")]
    #[schemars(with = "BTreeMap<String, ComponentState>")]
    components: Vec<(&'a str, ComponentState)>,
    /// If there are several models: each model's state
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    models: BTreeMap<&'a str, ComponentState>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<Warning>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
enum HealthStatus {
    Healthy,
    Unhealthy,
}

/// A condition that an operator should know although the service works.
#[derive(Serialize, JsonSchema)]
#[schemars(inline)]
struct Warning {
    code: &'static str,
    detail: String,
}

fn as_map<S: Serializer>(components: &[(&str, ComponentState)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(components.iter().copied())
}

impl<'a> Health<'a> {
    fn new(components: Vec<(&'a str, ComponentState)>) -> Self {
        let is_healthy = components.iter().all(|(_, state)| state.is_healthy());
        let status = if is_healthy { HealthStatus::Healthy } else { HealthStatus::Unhealthy };
        Self { status, components, models: BTreeMap::new(), warnings: Vec::new() }
    }

    /// JSON.
    fn text(&self) -> String {
        // Serialising this type cannot fail: its keys are strings.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// The state of each component, from memory.
pub(crate) async fn health(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let snapshot = app.snapshot();
    let registry = app.models.registry();
    let mut health = Health::new(components(&app, &snapshot));
    health.warnings = warnings(&snapshot);
    health.warnings.extend(own_warnings(&app.models, &snapshot));
    health.warnings.extend(too_few_workers(&app, &snapshot));
    let partitions = app.store.queue().policy().partitions;
    let workers = snapshot.workers.as_ref();
    health.warnings.extend(workers.and_then(|workers| partitions_differ(workers, partitions)));
    let workers = snapshot.workers.as_ref().filter(|workers| !workers.models.is_empty());
    if let Some(workers) = workers.filter(|_| registry.len() > 1) {
        health.models = models(&app, &registry, workers);
        health.warnings.extend(model_warnings(&health.models, registry.default_model()));
    }
    if health.status == HealthStatus::Healthy {
        return Kept::new(health.text(), "application/json").answer(&headers);
    }
    let mut response = json(health.text());
    ApiError::mark_unavailable(&mut response);
    response
}

fn components<'a>(app: &App, snapshot: &'a Snapshot) -> Vec<(&'a str, ComponentState)> {
    use ComponentState::{Down, None as NoneExpected, Ok, WrongTopology};
    let down = app.store.queue().redis().down();
    // While Redis is down, the state of the workers is unknown: their last report may be outdated.
    let Some(workers) = snapshot.workers.as_ref().filter(|_| down.is_none()) else {
        let is_wrong = matches!(down, Some(StoreError::WrongTopology(_)));
        return vec![("redis", if is_wrong { WrongTopology } else { Down })];
    };
    let redis = snapshot.trouble.as_ref().map_or(Ok, Trouble::state);
    let backend = |(name, is_ok): (&'a String, &bool)| (name.as_str(), if *is_ok { Ok } else { Down });
    let mut components = vec![("redis", redis)];
    components.extend(workers.backends.iter().map(backend));
    if workers.backends.is_empty() {
        components.push(("worker", if app.workers_expected == 0 { NoneExpected } else { Down }));
    }
    components
}

/// The state of each model: whether a live worker can call it.
fn models<'a>(app: &App, registry: &Registry, workers: &Workers) -> BTreeMap<&'a str, ComponentState> {
    let state = |served: &Arc<Served>| {
        let state = match workers.models.get(served.name.as_str()) {
            Some(state) if state.is_ok => ComponentState::Ok,
            None if app.workers_expected == 0 => ComponentState::Unserved,
            _ => ComponentState::Down,
        };
        (served.name.as_str(), state)
    };
    registry.iter().map(state).collect()
}

/// The service works without these models.
fn model_warnings(models: &BTreeMap<&str, ComponentState>, default: Option<ModelName>) -> Option<Warning> {
    let is_down = |(name, state): &(&&str, &ComponentState)| {
        !state.is_healthy() && default.is_none_or(|default| default.as_str() != **name)
    };
    let down: Vec<_> = models.iter().filter(is_down).map(|(name, _)| *name).collect();
    let detail = format!("No live worker can call {}", down.join(", "));
    (!down.is_empty()).then_some(Warning { code: "models_down", detail })
}

/// Some workers live, but fewer than expected. Without any, the component says so.
fn too_few_workers(app: &App, snapshot: &Snapshot) -> Option<Warning> {
    let live = snapshot.workers.as_ref().map_or(0, |workers| workers.live);
    let detail = format!("{live} of {} expected workers are alive", app.workers_expected);
    (0 < live && live < app.workers_expected).then_some(Warning { code: "workers_missing", detail })
}

/// Models that live workers cannot load, and those that they do not serve yet.
fn load_warnings(workers: &Workers) -> impl Iterator<Item = Warning> + use<> {
    let failed = listed(&workers.failed).map(|names| Warning {
        code: "models_failed",
        detail: format!(
            "Live workers cannot load the present files of {names}; they go on with earlier ones, if any"
        ),
    });
    let undescribed = listed(&workers.undescribed).map(|names| Warning {
        code: "models_undescribed",
        detail: format!("No model server has described {names} to the workers yet"),
    });
    failed.into_iter().chain(undescribed)
}

/// Live workers that have different descriptions of a model.
fn differences(workers: &Workers) -> Option<Warning> {
    let differing = workers.models.iter().filter(|(_, state)| state.descriptions.len() > 1);
    let names: Vec<_> = differing.map(|(name, _)| name.as_str()).collect();
    let detail = format!("Live workers have different descriptions of {}", names.join(", "));
    (!names.is_empty()).then_some(Warning { code: "descriptions_differ", detail })
}

/// Live workers that look for jobs in fewer partitions than this proxy uses.
fn partitions_differ(workers: &Workers, own: u16) -> Option<Warning> {
    let fewer: Vec<_> = workers.partitions.iter().filter(|of| **of < own).map(u16::to_string).collect();
    let detail = format!(
        "This proxy has PARTITIONS={own}, but live workers have {}: only the other workers run jobs of all partitions",
        fewer.join(" and ")
    );
    (!fewer.is_empty()).then_some(Warning { code: "partitions_differ", detail })
}

/// Models in MODELS_DIR that live workers describe differently, or whose files cannot be read.
fn own_warnings(models: &Models, snapshot: &Snapshot) -> impl Iterator<Item = Warning> + use<> {
    let differing = snapshot
        .workers
        .as_ref()
        .map(|workers| models.differing(|name| Some(&workers.models.get(name)?.descriptions)));
    let differing = listed(differing.unwrap_or_default()).map(|names| Warning {
        code: "descriptions_differ",
        detail: format!("Live workers have other descriptions than this proxy of {names}"),
    });
    let failed = listed(models.failed()).map(|names| Warning {
        code: "descriptions_rejected",
        detail: format!("This proxy cannot read the present files of {names}"),
    });
    differing.into_iter().chain(failed)
}

/// The names as text, if there are any.
fn listed(names: impl IntoIterator<Item = impl Display>) -> Option<String> {
    let names: Vec<_> = names.into_iter().map(|name| name.to_string()).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

fn warnings(snapshot: &Snapshot) -> Vec<Warning> {
    let data_lost = snapshot.loss.map(|(at, loss)| {
        let at = humantime::format_rfc3339_seconds(at);
        Warning { code: "redis_data_lost", detail: format!("Redis lost jobs, noticed at {at}: {loss}") }
    });
    let unreachable = (!snapshot.unreachable.is_empty()).then(|| Warning {
        code: "partitions_down",
        detail: format!(
            "Redis does not answer for the partitions {}; jobs in them wait, and submissions with an Idempotency-Key in them \
             are refused",
            listed(&snapshot.unreachable).unwrap_or_default()
        ),
    });
    let workers = snapshot.workers.as_ref();
    let differences = workers.and_then(differences);
    data_lost
        .into_iter()
        .chain(unreachable)
        .chain(differences)
        .chain(workers.into_iter().flat_map(load_warnings))
        .collect()
}

/// The process runs.
pub(crate) async fn livez(headers: HeaderMap) -> Response {
    OK.answer(&headers)
}

/// The process can do its work and wants traffic.
pub(crate) async fn readyz(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, ApiError> {
    match app.store.queue().redis().down() {
        Some(wrong @ StoreError::WrongTopology(_)) => Err(wrong.into()),
        None if !app.shutdown.is_cancelled() => Ok(OK.answer(&headers)),
        _ => Err(ApiError::NotReady),
    }
}

/// The metrics as Prometheus reads them (text format 0.0.4).
pub(crate) async fn metrics(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    Kept::new(app.metrics.page(), "text/plain; version=0.0.4; charset=utf-8").answer(&headers)
}

/// Describes it for the contract.
pub(super) fn health_operation(contract: &mut Contract<'_>) -> Operation {
    let mut answer = |description: &str, onnx| {
        let components = vec![("redis", ComponentState::Ok), ("onnx", onnx)];
        contract.answer(description, &Health::new(components))
    };
    Operation {
        id: "health",
        tag: Tag::Service,
        summary: "The state of each component",
        description: "The state of the last second.".to_owned(),
        parameters: vec![],
        body: None,
        answers: vec![
            (200, answer("All components are ok", ComponentState::Ok)),
            (503, answer("A component is not ok", ComponentState::Down)),
        ],
        errors: vec![ApiError::NotAcceptable],
    }
    .with_etag()
}

/// Describes /livez for the contract.
pub(super) fn livez_operation(_: &mut Contract<'_>) -> Operation {
    plain("livez", "The process runs", vec![])
}

/// Describes /readyz for the contract.
pub(super) fn readyz_operation(_: &mut Contract<'_>) -> Operation {
    plain("readyz", "The service is ready for traffic", vec![ApiError::NotReady, wrong_topology()])
}

/// Describes /metrics for the contract.
pub(super) fn metrics_operation(_: &mut Contract<'_>) -> Operation {
    plain("metrics", "The metrics as Prometheus reads them", vec![])
}

fn plain(id: &'static str, summary: &'static str, errors: Vec<ApiError>) -> Operation {
    text(id, summary, "text/plain", "ok", errors)
}
