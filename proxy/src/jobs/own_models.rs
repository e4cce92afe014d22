//! The models in this proxy's MODELS_DIR: read at the start, and again when their files change. A model that cannot be read keeps its
//! earlier description.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tepal_shared::{
    job::ModelName,
    model::repository::{Files, INTERVAL, ModelError, Repository, Watch},
    process::telemetry,
};
use tokio::time::sleep;
use tracing::{info, warn};

use super::{known_models::Models, models::Served};
use crate::metrics::Metrics;

/// The models in MODELS_DIR at the start.
#[derive(Clone, Debug, Default)]
pub(crate) struct OwnModels {
    folder: PathBuf,
    pub(crate) models: Vec<Arc<Served>>,
    /// Those that cannot be read.
    failures: Vec<(ModelName, Arc<ModelError>)>,
    files: BTreeMap<ModelName, Files>,
    /// Why the folder itself cannot be read.
    unreadable: Option<Arc<io::Error>>,
}

/// Follows the files in MODELS_DIR.
#[derive(Clone)]
pub(crate) struct Follower {
    repository: Repository,
    watch: Watch,
    /// The folder could not be read at the last look.
    is_unreadable: bool,
    models: Arc<Models>,
    metrics: Arc<Metrics>,
}

/// The files of a model have changed.
struct Change {
    model: ModelName,
    outcome: Outcome,
}

enum Outcome {
    Read(Arc<Served>),
    /// A model server describes the model.
    NotDescribed,
    Failed(ModelError),
    Removed,
}

impl OwnModels {
    /// Reads the models. This blocks.
    pub(crate) fn read(folder: &Path) -> Self {
        let (repository, mut own) = (Repository::new(folder), Self::default());
        own.folder = folder.to_owned();
        match find(&repository) {
            Ok(files) => own.files = files,
            Err(error) => own.unreadable = Some(Arc::new(error)),
        }
        for model in own.files.keys().copied() {
            match read(&repository, model, false) {
                Outcome::Read(served) => own.models.push(served),
                Outcome::Failed(error) => own.failures.push((model, Arc::new(error))),
                Outcome::NotDescribed | Outcome::Removed => {}
            }
        }
        own
    }

    /// Reports what cannot be read. The returned value follows the files from now on.
    pub(crate) fn followed(self, models: Arc<Models>, metrics: Arc<Metrics>) -> Follower {
        let (repository, watch) = (Repository::new(self.folder), Watch::new(self.files));
        let mut follower = Follower { repository, watch, is_unreadable: false, models, metrics };
        for served in &self.models {
            follower.metrics.model_failed(served.name, false);
        }
        for (model, error) in &self.failures {
            follower.failed(*model, error);
        }
        if let Some(error) = &self.unreadable {
            follower.note_unreadable(error);
        }
        follower
    }
}

impl Follower {
    /// Runs as long as the service.
    pub(crate) async fn run(mut self) {
        loop {
            sleep(INTERVAL).await;
            self.look().await;
        }
    }

    async fn look(&mut self) {
        let (repository, mut watch) = (self.repository.clone(), self.watch.clone());
        let models = Arc::clone(&self.models);
        // A disk may be slow.
        let looked = tokio::task::spawn_blocking(move || {
            let changes = watch.changes(find(&repository)?);
            let read =
                |(model, is_there)| Change { model, outcome: change(&repository, &models, model, is_there) };
            let changes: Vec<_> = changes.into_iter().map(read).collect();
            Ok::<_, io::Error>((watch, changes))
        });
        match looked.await.unwrap_or_else(|panic| Err(io::Error::other(panic))) {
            Ok((watch, changes)) => {
                (self.watch, self.is_unreadable) = (watch, false);
                changes.into_iter().for_each(|change| self.apply(change));
            }
            Err(error) => self.note_unreadable(&error),
        }
    }

    fn apply(&self, Change { model, outcome }: Change) {
        match outcome {
            Outcome::Read(served) => {
                info!(action = "description_read", model = model.as_str());
                self.models.own_read(served);
                self.metrics.model_failed(model, false);
            }
            Outcome::Failed(error) => self.failed(model, &error),
            Outcome::NotDescribed | Outcome::Removed => {
                info!(action = "description_removed", model = model.as_str());
                self.models.own_removed(model);
                self.metrics.model_failed(model, false);
            }
        }
    }

    /// An earlier description stays. The files are read again when they change.
    fn failed(&self, model: ModelName, error: &ModelError) {
        warn!(action = "description_rejected", model = model.as_str(), error = telemetry::chain(error));
        self.models.own_failed(model);
        self.metrics.model_failed(model, true);
    }

    /// Nothing is removed because the folder is away.
    fn note_unreadable(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.is_unreadable, true) {
            warn!(action = "models_unreadable", error = telemetry::chain(error));
        }
    }
}

/// The files of all models.
fn find(repository: &Repository) -> io::Result<BTreeMap<ModelName, Files>> {
    let names = repository.folders()?;
    Ok(names.into_iter().map(|name| (name, repository.files(name))).collect())
}

fn change(repository: &Repository, models: &Models, model: ModelName, is_there: bool) -> Outcome {
    if is_there { read(repository, model, models.is_own(model)) } else { Outcome::Removed }
}

/// Reads a model. A folder that does not describe its model is that of a model server, unless it described the model before.
fn read(repository: &Repository, model: ModelName, has_earlier: bool) -> Outcome {
    match repository.undescribed(model.as_str()) {
        Ok(Some(asked))
            if asked.backend.as_deref().map_or(!has_earlier, |backend| !backend.starts_with("onnx")) =>
        {
            return Outcome::NotDescribed;
        }
        Err(error) => return Outcome::Failed(error),
        Ok(_) => {}
    }
    match repository.load(model.as_str()) {
        Ok(loaded) => Outcome::Read(Arc::new(Served::new(model, loaded.model))),
        Err(error) => Outcome::Failed(error),
    }
}
