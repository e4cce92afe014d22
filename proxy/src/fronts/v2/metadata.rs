//! What the server and its models are.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use serde_json::{Value, json};
use tepal_shared::{
    model::{Model, Shape},
    tensor::DataType,
};

use super::named::Named;
use crate::{
    edge::access::Caller, error::ApiError, http::answer::json as as_json, jobs::models::Served, state::App,
};

/// The platform of every model: which engine or server runs it is the workers' affair.
pub(super) const PLATFORM: &str = "tepal";

pub(super) const SERVER: &str = "tepal";
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The server.
pub(super) async fn server() -> Response {
    as_json(server_metadata().to_string())
}

pub(super) fn server_metadata() -> Value {
    json!({
        "name": SERVER,
        "version": VERSION,
        "extensions": ["binary_tensor_data", "model_configuration", "model_repository"],
    })
}

/// The names of all models that the caller may use.
pub(super) async fn list(State(app): State<Arc<App>>, caller: Caller) -> Response {
    let registry = app.models.registry();
    let names: Vec<_> = allowed(registry.iter(), &caller).map(|served| served.name.as_str()).collect();
    as_json(json!({"models": names}).to_string())
}

/// The state of each of them.
pub(super) async fn index(State(app): State<Arc<App>>, caller: Caller) -> Response {
    let (registry, snapshot) = (app.models.registry(), app.snapshot());
    let entry = |served: &Arc<Served>| {
        let is_ready = snapshot.is_ready(served.name.as_str());
        index_entry(served.name.as_str(), &served.description.version, is_ready)
    };
    let entries: Vec<_> = allowed(registry.iter(), &caller).map(entry).collect();
    as_json(Value::from(entries).to_string())
}

pub(super) fn index_entry(name: &str, version: &str, is_ready: bool) -> Value {
    let (state, reason) =
        if is_ready { ("READY", "") } else { ("UNAVAILABLE", "no live worker can call the model") };
    json!({"name": name, "version": version, "state": state, "reason": reason})
}

fn allowed<'a>(
    models: impl Iterator<Item = &'a Arc<Served>>,
    caller: &Caller,
) -> impl Iterator<Item = &'a Arc<Served>> {
    models.filter(|served| caller.may_use(served.name.as_str()))
}

/// A model's tensors and versions.
pub(super) async fn model(
    State(app): State<Arc<App>>,
    caller: Caller,
    named: Named,
) -> Result<Response, ApiError> {
    let model = named.model(&app.models.registry(), &caller)?;
    Ok(as_json(model_metadata(model.name.as_str(), &model.versions(), &model.description).to_string()))
}

/// Of a pinned version, and of a model whose versions cannot be pinned, only its own is known.
pub(super) fn known<'a>(versions: &[&'a str], model: &'a Model) -> Vec<&'a str> {
    if versions.is_empty() { vec![model.version.as_str()] } else { versions.to_vec() }
}

pub(super) fn model_metadata(name: &str, versions: &[&str], model: &Model) -> Value {
    let versions = known(versions, model);
    json!({
        "name": name,
        "versions": versions,
        "platform": PLATFORM,
        "inputs": model.client_inputs().iter().map(|it| tensor(&it.name, it.datatype, &it.shape, model)).collect::<Vec<_>>(),
        "outputs": model.client_outputs().map(|it| tensor(&it.name, it.datatype, &it.shape, model)).collect::<Vec<_>>(),
    })
}

fn tensor(name: &str, datatype: DataType, shape: &Shape, model: &Model) -> Value {
    json!({"name": name, "datatype": datatype.as_str(), "shape": whole(shape, model)})
}

/// The axes with that of the batch.
pub(super) fn whole(shape: &Shape, model: &Model) -> Vec<i64> {
    model.has_batch_axis().then_some(-1).into_iter().chain(lengths(shape)).collect()
}

/// -1 = any length.
pub(super) fn lengths(shape: &Shape) -> impl Iterator<Item = i64> + use<'_> {
    shape.axes().iter().map(|axis| axis.length().map_or(-1, |length| length as i64))
}

/// The part of Triton's model configuration that clients read.
pub(super) async fn config(
    State(app): State<Arc<App>>,
    caller: Caller,
    named: Named,
) -> Result<Response, ApiError> {
    let model = named.model(&app.models.registry(), &caller)?;
    Ok(as_json(model_config(model.name.as_str(), &model.description).to_string()))
}

pub(super) fn model_config(name: &str, model: &Model) -> Value {
    let tensor = |name: &str, datatype: DataType, shape: &Shape| json!({"name": name, "data_type": config_type(datatype), "dims": lengths(shape).collect::<Vec<_>>()});
    json!({
        "name": name,
        "platform": PLATFORM,
        "backend": PLATFORM,
        "max_batch_size": model.max_batch,
        "input": model.client_inputs().iter().map(|it| tensor(&it.name, it.datatype, &it.shape)).collect::<Vec<_>>(),
        "output": model.client_outputs().map(|it| tensor(&it.name, it.datatype, &it.shape)).collect::<Vec<_>>(),
    })
}

/// The name in `model_config.proto` of Triton.
pub(super) fn config_type(datatype: DataType) -> String {
    match datatype {
        DataType::Bytes => "TYPE_STRING".to_owned(),
        other => format!("TYPE_{}", other.as_str()),
    }
}
