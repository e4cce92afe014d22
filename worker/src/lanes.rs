//! The lanes of the process: starts one for each model, replaces it when the files of its model change, and stops it when they are
//! gone. A model that cannot be loaded changes nothing: the lane of its earlier files goes on.

use std::{
    collections::BTreeMap,
    io,
    num::{NonZeroU32, NonZeroUsize},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tepal_shared::{
    job::ModelName,
    process::{supervisor::Tasks, telemetry},
    queue::work::Work,
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::{
    backend::{Backend, OpenError},
    fetch::{lane::Lane, quarantine::Quarantine, reader::Arrivals},
    metrics,
    models::{Files, ModelFailure, ServedModel},
    run::{
        batch_limit::BatchLimit, breaker::Breaker, leases::Leases, limiter::Limiter, runner::Runner,
        sample::Sample, slots::Slots,
    },
    settings::Config,
    upkeep::liveness::Liveness,
};

/// How often the files of the models are looked at.
const INTERVAL: Duration = Duration::from_secs(2);

/// Opens the backend of a model.
pub type Open = Arc<dyn Fn(&ServedModel) -> Result<Arc<dyn Backend>, OpenError> + Send + Sync>;

/// A model with what runs it.
type OpenModel = (ServedModel, Arc<dyn Backend>);

/// The models that are served now. Clones share them.
#[derive(Clone)]
pub struct Served {
    default: ModelName,
    runners: Arc<Mutex<BTreeMap<ModelName, Arc<Runner>>>>,
}

/// The models of the repository when the worker starts.
pub struct Opened {
    models: Vec<OpenModel>,
    settled: BTreeMap<ModelName, Files>,
}

/// What the lanes of a process share.
pub struct LaneParts {
    /// The settings.
    pub config: Config,
    /// Opens backends.
    pub open: Open,
    /// The consumer of the process.
    pub consumer: Arc<str>,
    /// The queue.
    pub work: Work,
    /// The held jobs.
    pub leases: Leases,
    /// The slots of the process.
    pub slots: Slots,
    /// The quarantine of any lane.
    pub quarantine: Quarantine,
    /// Where idle lanes wait.
    pub arrivals: Arrivals,
    /// Notified when a backend becomes reachable or unreachable, and when a model is added or removed.
    pub changed: Arc<Notify>,
    /// The loops of the process.
    pub liveness: Liveness,
    /// The models that are served.
    pub served: Served,
}

/// All lanes.
pub struct Lanes {
    parts: LaneParts,
    running: BTreeMap<ModelName, RunningLane>,
    /// Files that a lane runs, or that could not be loaded.
    settled: BTreeMap<ModelName, Files>,
    /// Files that were seen once; none for a model that was missing once. They count when the next look finds the same: a copy may be
    /// under way.
    unsettled: BTreeMap<ModelName, Files>,
    /// The repository could not be read at the last look.
    is_unreadable: bool,
}

struct RunningLane {
    stop: CancellationToken,
    claims: Tasks,
    /// They run while the lane drains.
    helpers: Tasks,
    stop_helpers: CancellationToken,
}

/// Opens the models of the repository. One that fails does not stop the others, unless it is the default model.
///
/// # Errors
/// When the repository cannot be read, when the default model cannot be opened, and when there are models and none can be opened.
pub async fn open_all(config: &Config, open: &Open) -> Result<Opened, ModelFailure> {
    let settled = config.models.find(&config.common).map_err(ModelFailure::Repository)?;
    let missing = config.models.missing(&settled);
    let mut failures: Vec<_> = missing.map(|model| (model, ModelFailure::Missing(model))).collect();
    let mut models = Vec::new();
    for model in settled.keys().copied() {
        let is_default = model == config.common.model_name;
        // The settings were checked with the description of the default model.
        let known = is_default.then(|| ServedModel { name: model, description: config.common.model.clone() });
        match load(config, open, model, known).await {
            Ok(opened) => models.push(opened),
            Err(failure) if is_default => return Err(failure),
            Err(failure) => failures.push((model, failure)),
        }
    }
    if models.is_empty()
        && let Some((_, failure)) = failures.pop()
    {
        return Err(failure);
    }
    for (model, failure) in failures {
        report(model, &failure);
    }
    Ok(Opened { models, settled })
}

/// Loads a model, away from the threads that serve the others; its description, unless it is known.
fn load(
    config: &Config,
    open: &Open,
    model: ModelName,
    known: Option<ServedModel>,
) -> impl Future<Output = Result<OpenModel, ModelFailure>> + Send + use<> {
    let (models, common, open) = (config.models.clone(), config.common.clone(), Arc::clone(open));
    let loaded = tokio::task::spawn_blocking(move || {
        let model = known.map_or_else(|| models.load(&common, model), Ok)?;
        let backend = open(&model).map_err(ModelFailure::Backend)?;
        Ok::<_, ModelFailure>((model, backend))
    });
    async move { loaded.await.unwrap_or_else(|_| Err(ModelFailure::Panicked)) }
}

impl Served {
    /// None yet. `default` is the default model.
    #[must_use]
    pub fn new(default: ModelName) -> Self {
        Self { default, runners: Arc::default() }
    }

    /// What runs each model.
    #[must_use]
    pub fn runners(&self) -> Vec<Arc<Runner>> {
        self.lock().values().cloned().collect()
    }

    /// The names of the models.
    #[must_use]
    pub fn models(&self) -> Vec<ModelName> {
        self.lock().keys().copied().collect()
    }

    /// The default model, or the first one if it is not served.
    #[must_use]
    pub fn main(&self) -> Option<Arc<Runner>> {
        let runners = self.lock();
        runners.get(&self.default).or_else(|| runners.values().next()).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ModelName, Arc<Runner>>> {
        self.runners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lanes {
    /// Starts a lane for each model.
    #[must_use]
    pub fn start(parts: LaneParts, opened: Opened, shutdown: &CancellationToken) -> Self {
        let Opened { models, settled } = opened;
        let (running, unsettled) = (BTreeMap::new(), BTreeMap::new());
        let mut lanes = Self { parts, running, settled, unsettled, is_unreadable: false };
        models.into_iter().for_each(|model| lanes.begin(model, shutdown));
        lanes
    }

    /// Follows the repository until `shutdown` begins. Then waits until all lanes have drained.
    pub async fn run(mut self, shutdown: CancellationToken) {
        while shutdown.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_some() {
            self.refresh(&shutdown).await;
        }
        for (_, mut lane) in std::mem::take(&mut self.running) {
            lane.claims.ended().await;
            lane.stop_helpers.cancel();
            lane.helpers.ended().await;
        }
    }

    async fn refresh(&mut self, shutdown: &CancellationToken) {
        let mut found = match self.find() {
            Ok(found) => found,
            Err(error) => return self.note_unreadable(&error),
        };
        self.is_unreadable = false;
        for model in self.settled.keys() {
            found.entry(*model).or_default();
        }
        for (model, files) in found {
            if self.settled.get(&model) == Some(&files) {
                self.unsettled.remove(&model);
            } else if self.unsettled.get(&model) == Some(&files) {
                self.unsettled.remove(&model);
                self.change(model, files, shutdown).await;
            } else {
                self.unsettled.insert(model, files);
            }
        }
    }

    fn find(&self) -> io::Result<BTreeMap<ModelName, Files>> {
        self.parts.config.models.find(&self.parts.config.common)
    }

    /// Nothing is removed because the repository is away.
    fn note_unreadable(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.is_unreadable, true) {
            let folder = self.parts.config.common.models_dir.display().to_string();
            error!(action = "models_unreadable", folder, error = telemetry::chain(error));
        }
    }

    /// The files of a model have changed, or are gone.
    async fn change(&mut self, model: ModelName, files: Files, shutdown: &CancellationToken) {
        if files.is_empty() {
            self.settled.remove(&model);
            return self.end(model).await;
        }
        self.settled.insert(model, files);
        self.replace(model, shutdown).await;
    }

    async fn replace(&mut self, model: ModelName, shutdown: &CancellationToken) {
        match load(&self.parts.config, &self.parts.open, model, None).await {
            Ok(opened) => {
                self.end(model).await;
                if !shutdown.is_cancelled() {
                    self.begin(opened, shutdown);
                }
            }
            // An earlier lane goes on. The files are tried again when they change.
            Err(failure) => report(model, &failure),
        }
    }

    fn begin(&mut self, (model, backend): OpenModel, shutdown: &CancellationToken) {
        let name = model.name;
        let (worker, kind) = (&self.parts.config.worker_id, backend.name());
        info!(action = "worker_started", worker, backend = kind, model = name.as_str());
        metrics::model_added(name);
        let runner = self.parts.runner(model, backend);
        self.parts.served.lock().insert(name, Arc::clone(&runner));
        self.parts.changed.notify_one();
        let (stop, stop_helpers) = (shutdown.child_token(), CancellationToken::new());
        let (mut claims, mut helpers) = (Tasks::new(stop.clone()), Tasks::new(stop_helpers.clone()));
        let lane = self.parts.lane(Arc::clone(&runner));
        claims.keep("consumer", move |shutdown| lane.clone().run(shutdown));
        helpers.keep("breaker", move |stop| {
            let (backend, sample) = (Arc::clone(&runner.backend), runner.sample.clone());
            runner.breaker.clone().run(backend, sample, stop)
        });
        self.running.insert(name, RunningLane { stop, claims, helpers, stop_helpers });
    }

    /// Stops a lane: running batches finish, and the other jobs are released.
    async fn end(&mut self, model: ModelName) {
        let Some(mut lane) = self.running.remove(&model) else { return };
        lane.stop.cancel();
        lane.claims.ended().await;
        lane.stop_helpers.cancel();
        lane.helpers.ended().await;
        self.parts.served.lock().remove(&model);
        self.parts.changed.notify_one();
        metrics::model_removed(model);
        info!(action = "model_stopped", model = model.as_str());
    }
}

impl LaneParts {
    fn runner(&self, model: ServedModel, backend: Arc<dyn Backend>) -> Arc<Runner> {
        let ServedModel { name, description: model } = model;
        let serving = &model.serving;
        let settings = self.config.run.of_model(&model);
        let most = serving.max_in_flight.map_or(usize::MAX, NonZeroUsize::get).min(self.config.fetch.slots);
        let share = self.slots.share(serving.weight.map_or(1, NonZeroU32::get));
        let work =
            serving.result_ttl().map_or_else(|| self.work.clone(), |ttl| self.work.with_result_ttl(ttl));
        let sample = Sample::new(Arc::clone(&backend), model.clone(), settings.inference_timeout);
        Arc::new(Runner {
            name,
            sample,
            model,
            backend,
            work,
            breaker: Breaker::new(name, Arc::clone(&self.changed)),
            limiter: Limiter::new(name, most, share),
            batch_limit: BatchLimit::new(name, settings.limits.rows),
            leases: self.leases.clone(),
            settings,
        })
    }

    fn lane(&self, runner: Arc<Runner>) -> Lane {
        let model = runner.name;
        Lane {
            model,
            consumer: Arc::clone(&self.consumer),
            settings: self.config.fetch,
            runner,
            quarantine: self.quarantine.of_another_lane(),
            arrivals: self.arrivals.clone(),
            pulse: self.liveness.watch(format!("lane of {model}"), self.config.fetch.batch_max_wait),
        }
    }
}

fn report(model: ModelName, failure: &ModelFailure) {
    metrics::model_failed(model);
    error!(action = "model_failed", model = model.as_str(), error = telemetry::chain(failure));
}
