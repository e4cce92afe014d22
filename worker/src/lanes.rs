//! The lanes of the process: starts one for each model, replaces it when the files of its model or the description of its server
//! change, and stops it when the files are gone. A model that cannot be loaded changes nothing: its earlier lane goes on.

mod describer;
mod loader;
mod served;

use std::{
    collections::BTreeMap,
    io,
    num::{NonZeroU32, NonZeroUsize},
    sync::Arc,
};

use tepal_shared::{
    job::ModelName,
    model::{
        Model,
        repository::{Files, INTERVAL, Undescribed, Watch},
    },
    process::{supervisor::Tasks, telemetry},
    queue::work::Work,
};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

pub(crate) use self::loader::{Description, describe};
use self::{
    describer::{Described, Describer},
    loader::{OpenModel, Outcome, load, load_served},
};
pub use self::{
    loader::{Open, Opened, open_all},
    served::Served,
};
use crate::{
    backend::{Backend, Lazy, ServedInterface},
    fetch::{arrivals::Arrivals, lane::Lane, quarantine::Quarantine},
    metrics,
    models::{ModelFailure, ServedModel},
    run::{
        batch_limit::BatchLimit, breaker::Breaker, leases::Leases, limiter::Limiter, runner::Runner,
        sample::Sample, slots::Slots,
    },
    settings::Config,
    upkeep::liveness::Liveness,
};

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
    /// The files that a lane runs, or that could not be loaded.
    watch: Watch,
    /// Models that only a model server describes.
    describing: BTreeMap<ModelName, Describing>,
    describers: mpsc::Sender<Described>,
    described: mpsc::Receiver<Described>,
    /// The repository could not be read at the last look.
    is_unreadable: bool,
}

/// The model server is asked about a model as long as this lives.
struct Describing {
    asked: Undescribed,
    _describer: Tasks,
}

struct RunningLane {
    stop: CancellationToken,
    claims: Tasks,
    /// They run while the lane drains.
    helpers: Tasks,
    stop_helpers: CancellationToken,
}

impl Lanes {
    /// Starts a lane for each model.
    #[must_use]
    pub fn start(parts: LaneParts, opened: Opened, shutdown: &CancellationToken) -> Self {
        let Opened { models, undescribed, failures, settled } = opened;
        let (describers, described) = mpsc::channel(1);
        let mut lanes = Self {
            parts,
            running: BTreeMap::new(),
            watch: Watch::new(settled),
            describing: BTreeMap::new(),
            describers,
            described,
            is_unreadable: false,
        };
        failures.iter().for_each(|(model, failure)| lanes.parts.failed(*model, failure));
        undescribed.into_iter().for_each(|(model, asked)| lanes.ask(model, asked, shutdown));
        models.into_iter().for_each(|model| lanes.begin(model, shutdown));
        lanes
    }

    /// Follows the repository and the descriptions of the model server until `shutdown` begins. Then waits until all lanes have
    /// drained.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut looks = tokio::time::interval_at(tokio::time::Instant::now() + INTERVAL, INTERVAL);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(described) = self.described.recv() => self.take(described, &shutdown).await,
                _ = looks.tick() => self.refresh(&shutdown).await,
            }
        }
        self.describing.clear();
        for (_, mut lane) in std::mem::take(&mut self.running) {
            lane.claims.ended().await;
            lane.stop_helpers.cancel();
            lane.helpers.ended().await;
        }
    }

    async fn refresh(&mut self, shutdown: &CancellationToken) {
        let found = match self.find() {
            Ok(found) => found,
            Err(error) => return self.note_unreadable(&error),
        };
        self.is_unreadable = false;
        for (model, is_there) in self.watch.changes(found) {
            self.change(model, is_there, shutdown).await;
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
    async fn change(&mut self, model: ModelName, is_there: bool, shutdown: &CancellationToken) {
        if !is_there {
            self.describing.remove(&model);
            self.parts.forget(model);
            return self.end(model).await;
        }
        match load(&self.parts.config, &self.parts.open, model, None).await {
            Ok(Outcome::Opened(opened)) => {
                self.describing.remove(&model);
                self.replace(opened, shutdown).await;
            }
            // An earlier lane goes on until the server answers.
            Ok(Outcome::Undescribed(asked)) => self.ask(model, asked, shutdown),
            // An earlier lane goes on. The files are tried again when they change.
            Err(failure) => self.parts.failed(model, &failure),
        }
    }

    /// Asks the model server about a model, from now on.
    fn ask(&mut self, model: ModelName, asked: Undescribed, shutdown: &CancellationToken) {
        let server = match ServedInterface::open(&self.parts.config.backend, model.as_str(), &asked) {
            Ok(server) => Arc::new(server),
            Err(error) => return self.parts.failed(model, &ModelFailure::Backend(error)),
        };
        let describer = Describer { model, asked: asked.clone(), server, described: self.describers.clone() };
        let mut tasks = Tasks::new(shutdown.clone());
        tasks.keep("describer", move |stop| describer.clone().run(stop));
        if !self.running.contains_key(&model) {
            self.parts.undescribed(model);
        }
        self.describing.insert(model, Describing { asked, _describer: tasks });
    }

    /// The model server has described a model, or describes it differently now.
    async fn take(&mut self, described: Described, shutdown: &CancellationToken) {
        let Described { model, asked, interface } = described;
        // Another question may have been asked since.
        if self.describing.get(&model).is_none_or(|describing| describing.asked != asked) {
            return;
        }
        match load_served(&self.parts.config, &self.parts.open, model, interface).await {
            Ok(opened) => self.replace(opened, shutdown).await,
            // An earlier lane goes on.
            Err(failure) => self.parts.failed(model, &failure),
        }
    }

    async fn replace(&mut self, opened: OpenModel, shutdown: &CancellationToken) {
        self.end(opened.0.name).await;
        if !shutdown.is_cancelled() {
            self.begin(opened, shutdown);
        }
    }

    fn begin(&mut self, (model, backend): OpenModel, shutdown: &CancellationToken) {
        let name = model.name;
        let (worker, kind) = (&self.parts.config.worker_id, backend.name());
        info!(action = "worker_started", worker, backend = kind, model = name.as_str());
        for reason in &model.broken_versions {
            error!(action = "model_version_broken", model = name.as_str(), error = reason);
        }
        metrics::model_added(name);
        let runner = self.parts.runner(model, backend);
        self.parts.forget(name);
        self.parts.served.begin(name, Arc::clone(&runner));
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
        self.parts.served.end(model);
        self.parts.changed.notify_one();
        metrics::model_removed(model);
        info!(action = "model_stopped", model = model.as_str());
    }
}

impl LaneParts {
    fn runner(&self, model: Box<ServedModel>, backend: Arc<dyn Backend>) -> Arc<Runner> {
        let ServedModel { name, description: model, .. } = *model;
        let serving = &model.serving;
        let settings = self.config.run.of_model(&model);
        let most = serving.max_in_flight.map_or(usize::MAX, NonZeroUsize::get).min(self.config.fetch.slots);
        let share = self.slots.share(serving.weight.map_or(1, NonZeroU32::get));
        let work =
            serving.result_ttl().map_or_else(|| self.work.clone(), |ttl| self.work.with_result_ttl(ttl));
        let sample = Sample::new(Arc::clone(&backend), model.clone(), settings.inference_timeout);
        let mut runner = Runner {
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
            other_versions: Vec::new(),
        };
        let versions = runner.model.other_versions.iter();
        runner.other_versions = versions.map(|version| self.runner_of_version(&runner, version)).collect();
        Arc::new(runner)
    }

    /// Runs another version of the runner's model.
    fn runner_of_version(&self, runner: &Runner, version: &Model) -> Arc<Runner> {
        let description = version.clone();
        let opened = ServedModel { name: runner.name, description, broken_versions: Vec::new() };
        let open = Arc::clone(&self.open);
        Arc::new(Runner {
            name: runner.name,
            model: version.clone(),
            backend: Arc::new(Lazy::new(runner.backend.name(), move || open(&opened))),
            work: runner.work.clone(),
            sample: runner.sample.clone(),
            breaker: runner.breaker.clone(),
            limiter: runner.limiter.clone(),
            batch_limit: runner.batch_limit.clone(),
            leases: runner.leases.clone(),
            settings: self.config.run.of_model(version),
            other_versions: Vec::new(),
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

    /// The model cannot be loaded.
    fn failed(&self, model: ModelName, failure: &ModelFailure) {
        metrics::model_failed(model, true);
        error!(action = "model_failed", model = model.as_str(), error = telemetry::chain(failure));
        self.served.fail(model);
        self.changed.notify_one();
    }

    /// The model waits for its server.
    fn undescribed(&self, model: ModelName) {
        self.forget(model);
        self.served.wait(model);
        self.changed.notify_one();
    }

    /// What was wrong with the model no longer matters.
    fn forget(&self, model: ModelName) {
        if self.served.forget(model) {
            metrics::model_failed(model, false);
        }
    }
}
