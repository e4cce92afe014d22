//! Loads models, away from the threads that serve the others: reads the description, and opens the backend.

use std::{collections::BTreeMap, sync::Arc};

use tepal_shared::{
    job::ModelName,
    model::repository::{Files, Interface, Loaded, Repository, Undescribed},
    process::telemetry,
};

use crate::{
    backend::{self, Backend, OpenError},
    models::{ModelFailure, ServedModel},
    settings::Config,
};

/// Opens the backend of a model.
pub type Open = Arc<dyn Fn(&ServedModel) -> Result<Arc<dyn Backend>, OpenError> + Send + Sync>;

/// A model with what runs it.
pub(super) type OpenModel = (Box<ServedModel>, Arc<dyn Backend>);

/// The models of the repository when the worker starts.
pub struct Opened {
    pub(super) models: Vec<OpenModel>,
    /// Those that only a model server describes.
    pub(super) undescribed: Vec<(ModelName, Undescribed)>,
    /// Those that cannot be loaded.
    pub(super) failures: Vec<(ModelName, ModelFailure)>,
    pub(super) settled: BTreeMap<ModelName, Files>,
}

/// What became of a model.
pub(super) enum Outcome {
    Opened(OpenModel),
    Undescribed(Undescribed),
}

/// Who describes a model.
pub(crate) enum Description {
    /// Its folder.
    Folder(Box<ServedModel>),
    /// Its server.
    Server(Undescribed),
}

/// Opens the models of the repository. One that fails does not stop the others, unless it is the default model.
///
/// # Errors
/// When the repository cannot be read, when the default model cannot be opened, and when there are models and none can be opened.
pub async fn open_all(config: &Config, open: &Open) -> Result<Opened, ModelFailure> {
    let settled = config.models.find(&config.common).map_err(ModelFailure::Repository)?;
    let missing = config.models.missing(&settled);
    let mut failures: Vec<_> = missing.map(|model| (model, ModelFailure::Missing(model))).collect();
    let (mut models, mut undescribed) = (Vec::new(), Vec::new());
    for model in settled.keys().copied() {
        match load(config, open, model, default_model(config, model)).await {
            Ok(Outcome::Opened(opened)) => models.push(opened),
            Ok(Outcome::Undescribed(asked)) => undescribed.push((model, asked)),
            Err(failure) if model == config.common.model_name => return Err(failure),
            Err(failure) => failures.push((model, failure)),
        }
    }
    if models.is_empty()
        && undescribed.is_empty()
        && let Some((_, failure)) = failures.pop()
    {
        return Err(failure);
    }
    Ok(Opened { models, undescribed, failures, settled })
}

/// The settings were checked with the description of the default model.
fn default_model(config: &Config, model: ModelName) -> Option<Box<ServedModel>> {
    let common = &config.common;
    let description = common.model.clone().filter(|_| model == common.model_name)?;
    let broken_versions = common.broken_versions.clone();
    Some(Box::new(ServedModel { name: model, description, broken_versions }))
}

/// Loads a model; its description, unless it is known.
pub(super) fn load(
    config: &Config,
    open: &Open,
    model: ModelName,
    known: Option<Box<ServedModel>>,
) -> impl Future<Output = Result<Outcome, ModelFailure>> + Send + use<> {
    let (config, open) = (config.clone(), Arc::clone(open));
    elsewhere(move || {
        let described =
            known.map_or_else(|| describe(&config, model), |known| Ok(Description::Folder(known)));
        match described? {
            Description::Folder(model) => Ok(Outcome::Opened(opened(&open, pinnable(&config, model)?)?)),
            Description::Server(asked) => Ok(Outcome::Undescribed(asked)),
        }
    })
}

/// Loads a model that its server described.
pub(super) fn load_served(
    config: &Config,
    open: &Open,
    name: ModelName,
    interface: Interface,
) -> impl Future<Output = Result<OpenModel, ModelFailure>> + Send + use<> {
    let (repository, open) = (Repository::new(&config.common.models_dir), Arc::clone(open));
    elsewhere(move || {
        let description = repository.load_served(name.as_str(), &interface)?;
        opened(&open, Box::new(ServedModel { name, description, broken_versions: Vec::new() }))
    })
}

/// Reads the description in the folder of a model, if it has one that is complete.
///
/// # Errors
/// When it cannot be used.
pub(crate) fn describe(config: &Config, name: ModelName) -> Result<Description, ModelFailure> {
    let repository = Repository::new(&config.common.models_dir);
    if let Some(undescribed) = repository.undescribed(name.as_str())? {
        let kind = backend::kind_named(&config.backend, undescribed.backend.as_deref());
        if kind.map_err(ModelFailure::Backend)?.is_server() {
            return Ok(Description::Server(undescribed));
        }
    }
    let Loaded { model: description, broken_versions } = repository.load(name.as_str())?;
    let broken_versions = broken_versions.iter().map(|broken| telemetry::chain(broken)).collect();
    Ok(Description::Folder(Box::new(ServedModel { name, description, broken_versions })))
}

/// The model with the versions that clients may pin, which depend on the backend.
fn pinnable(config: &Config, mut model: Box<ServedModel>) -> Result<Box<ServedModel>, ModelFailure> {
    let kind = backend::kind(&config.backend, &model.description).map_err(ModelFailure::Backend)?;
    if kind.is_server() {
        model.description = model.description.on_a_server();
    }
    Ok(model)
}

fn opened(open: &Open, model: Box<ServedModel>) -> Result<OpenModel, ModelFailure> {
    let backend = open(&model).map_err(ModelFailure::Backend)?;
    Ok((model, backend))
}

fn elsewhere<T: Send + 'static>(
    load: impl FnOnce() -> Result<T, ModelFailure> + Send + 'static,
) -> impl Future<Output = Result<T, ModelFailure>> + Send {
    let loaded = tokio::task::spawn_blocking(load);
    async move { loaded.await.unwrap_or_else(|_| Err(ModelFailure::Panicked)) }
}
