//! The processes of a run and the connections between them: every service reaches Redis, and its model server, through its
//! own fault proxy.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use redis::RedisError;
use redis::aio::MultiplexedConnection;
use serde_json::Value;
use tokio::sync::{Mutex, RwLock};

use super::Options;
use super::holdings::QUEUE;
use super::models::{ModelKind, STEP, WIDTH};
use super::repository::Repository;
use crate::fault_proxy::FaultProxy;
use crate::history::Final;
use crate::http::Client;
use crate::model_server::{ModelServer, ServerSpec, TensorSpec};
use crate::process::{Proxy, Worker};
use crate::redis::RedisServer;
use crate::wait::{eventually, poll};

const PROXIES: usize = 2;
/// The model that each worker calls on its own model server, if any. It runs the others itself.
const WORKERS: [Option<ModelKind>; 4] = [None, None, Some(ModelKind::Toy), Some(ModelKind::Wide)];
/// Longer than any freeze of a proxy but the longest, so that some requests are carried out after their client gave up.
const CLIENT_PATIENCE: Duration = Duration::from_secs(5);

/// Everything that runs.
#[derive(Debug)]
pub struct Stack {
    /// The Redis of the run.
    pub redis: RedisServer,
    pub(super) proxies: Vec<ProxyNode>,
    pub(super) workers: Vec<WorkerNode>,
    pub(super) redis_lock: Mutex<()>,
    /// Locked for reading while a fault lasts, and for writing during a measurement that no fault may disturb.
    pub(super) quiet: RwLock<()>,
    /// Repairs counted by worker processes that have ended.
    repairs_before: AtomicU64,
}

/// A proxy with its way to Redis.
#[derive(Debug)]
pub(super) struct ProxyNode {
    pub(super) process: Proxy,
    pub(super) client: Client,
    /// Requests to it that have no answer yet.
    pub(super) in_flight: AtomicU64,
    pub(super) link: FaultProxy,
    pub(super) lock: Mutex<()>,
}

/// A worker with its ways to Redis and to its model server.
#[derive(Debug)]
pub(super) struct WorkerNode {
    pub(super) process: Worker,
    pub(super) link: FaultProxy,
    pub(super) model: Option<ModelNode>,
    pub(super) repository: Repository,
    /// Lines in the log when the folder of each model last changed, in the order of [`ModelKind::ALL`].
    changed_at: [AtomicUsize; ModelKind::ALL.len()],
    pub(super) lock: Mutex<()>,
}

/// A model server and the way to it.
#[derive(Debug)]
pub(super) struct ModelNode {
    pub(super) kind: ModelKind,
    pub(super) server: ModelServer,
    pub(super) link: FaultProxy,
}

impl Stack {
    pub(super) async fn start(options: &Options) -> Self {
        // A long run keeps more jobs than the composition's limit holds.
        let redis = RedisServer::shipped().aof(options.fsync).config("maxmemory 0").start().await;
        let mut proxies = Vec::new();
        // From here a proxy knows only its default model. The others it learns from the workers.
        let models = Repository::make(options.dir.join("models-of-proxies"), &[ModelKind::Toy], None);
        for _ in 0..PROXIES {
            proxies.push(ProxyNode::start(&redis, options, &models).await);
        }
        let mut workers = Vec::new();
        for (number, served) in WORKERS.into_iter().enumerate() {
            let dir = options.dir.join(format!("models-of-worker-{number}"));
            let repository = Repository::make(dir, &ModelKind::ALL, served);
            workers.push(WorkerNode::start(&redis, options, repository, served).await);
        }
        for proxy in &proxies {
            proxy.knows_all_models().await;
        }
        Self {
            redis,
            proxies,
            workers,
            redis_lock: Mutex::default(),
            quiet: RwLock::default(),
            repairs_before: AtomicU64::new(0),
        }
    }

    /// The test's own connection, which no fault touches.
    pub(super) async fn redis_connection(&self) -> Result<MultiplexedConnection, RedisError> {
        self.connect(Duration::from_secs(2)).await
    }

    async fn connect(&self, reply_within: Duration) -> Result<MultiplexedConnection, RedisError> {
        let client = redis::Client::open(self.redis.url())?;
        let config = redis::AsyncConnectionConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(1)))
            .set_response_timeout(Some(reply_within));
        client.get_multiplexed_async_connection_with_config(&config).await
    }

    /// What Redis holds, read while no fault lasts.
    pub(super) async fn dump(&self) -> Final {
        let _alone = self.quiet.write().await;
        let read = poll(Duration::from_secs(120), || async {
            let mut connection = self.connect(Duration::from_secs(30)).await?;
            Final::read(&mut connection, QUEUE).await
        });
        read.await.unwrap_or_else(|gave_up| panic!("waited to read all of Redis, {gave_up}"))
    }

    /// Ends every fault that lasts.
    pub(super) fn heal(&self) {
        let links = self.proxies.iter().map(|node| &node.link);
        let links = links.chain(self.workers.iter().flat_map(WorkerNode::links));
        links.for_each(|link| {
            link.pass();
            link.drop_no_replies();
        });
    }

    /// A worker process is about to be lost, and with it what it counted.
    pub(super) async fn save_repairs(&self, node: &WorkerNode) {
        self.repairs_before.fetch_add(node.repairs().await, Ordering::Relaxed);
    }

    /// What the workers repaired, over all their processes.
    pub(super) async fn repairs(&self) -> u64 {
        let mut sum = self.repairs_before.load(Ordering::Relaxed);
        for node in &self.workers {
            sum += node.repairs().await;
        }
        sum
    }
}

impl ProxyNode {
    async fn start(redis: &RedisServer, options: &Options, models: &Repository) -> Self {
        let link = FaultProxy::start(&redis.addr()).await;
        let lease_ms = options.lease.as_millis().to_string();
        let models = models.dir().display().to_string();
        let env = [
            ("LEASE_MS", lease_ms.as_str()),
            ("MODELS_DIR", &models),
            ("MODEL_NAME", "toy"),
            ("LOG_LEVEL", "warn"),
        ];
        let process = Proxy::start(&redis.proxy_url_at(&link.addr()), &env).await;
        let client = process.client().with_timeout(CLIENT_PATIENCE);
        Self { process, client, in_flight: AtomicU64::new(0), link, lock: Mutex::default() }
    }

    async fn knows_all_models(&self) {
        for model in ModelKind::ALL {
            let path = format!("/models/{}", model.name());
            eventually(Duration::from_secs(60), "a proxy that knows all models", async || {
                let answer = self.client.try_get(&path).await.map_err(|error| error.to_string())?;
                if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
            })
            .await;
        }
    }
}

impl WorkerNode {
    async fn start(
        redis: &RedisServer,
        options: &Options,
        repository: Repository,
        served: Option<ModelKind>,
    ) -> Self {
        let link = FaultProxy::start(&redis.addr()).await;
        let model = match served {
            Some(kind) => Some(ModelNode::start(kind).await),
            None => None,
        };
        let mut env = vec![
            ("LEASE_MS", options.lease.as_millis().to_string()),
            ("MODELS_DIR", repository.dir().display().to_string()),
            ("MODEL_NAME", "toy".to_owned()),
            ("LOG_LEVEL", "info,tepal_worker=debug".to_owned()),
            ("INFERENCE_TIMEOUT_MS", "3000".to_owned()),
            ("RETRY_BASE_MS", "200".to_owned()),
            ("DRAIN_TIMEOUT_SECONDS", "5".to_owned()),
            // Most models take no time. With this, the worker holds jobs when it is hit.
            ("BATCH_MAX_WAIT_MS", "50".to_owned()),
        ];
        if let Some(model) = &model {
            env.extend([
                ("MODEL_BACKEND", "tensorflow_serving".to_owned()),
                ("TF_SERVING_HOST", "127.0.0.1".to_owned()),
                ("TF_SERVING_GRPC_PORT", model.link.port().to_string()),
            ]);
        }
        let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let process = Worker::start(&redis.worker_url_at(&link.addr()), &env).await;
        Self { process, link, model, repository, changed_at: Default::default(), lock: Mutex::default() }
    }

    /// The folder of a model is about to change.
    pub(super) fn note_change(&self, model: ModelKind) {
        self.changed_at[model as usize].store(self.process.logs().len(), Ordering::Relaxed);
    }

    /// Whether the worker has loaded the model since its folder changed.
    pub(super) fn has_loaded(&self, model: ModelKind) -> bool {
        let changed_at = self.changed_at[model as usize].load(Ordering::Relaxed);
        self.has_logged(changed_at, "worker_started", model)
    }

    /// The same of the process that runs now.
    pub(super) fn process_has_loaded(&self, model: ModelKind) -> bool {
        let changed_at = self.changed_at[model as usize].load(Ordering::Relaxed);
        let pid = format!("-{}-", self.process.pid());
        let is_it = |line: &Value| line["worker"].as_str().is_some_and(|worker| worker.contains(&pid));
        self.has_line(changed_at, "worker_started", model, is_it)
    }

    /// Whether this action came for this model after the first `before` lines of the log.
    pub(super) fn has_logged(&self, before: usize, action: &str, model: ModelKind) -> bool {
        self.has_line(before, action, model, |_| true)
    }

    fn has_line(
        &self,
        before: usize,
        action: &str,
        model: ModelKind,
        is_it: impl Fn(&Value) -> bool,
    ) -> bool {
        self.process.logs().any_since(before, |line| {
            let parsed = || serde_json::from_str::<Value>(line).unwrap_or_default();
            line.contains(action) && {
                let line = parsed();
                line["action"] == action && line["model"] == model.name() && is_it(&line)
            }
        })
    }

    /// The connections that can be broken.
    pub(super) fn links(&self) -> impl Iterator<Item = &FaultProxy> {
        std::iter::once(&self.link).chain(self.model.iter().map(|model| &model.link))
    }

    async fn repairs(&self) -> u64 {
        self.process.metrics().await.metric("tepal_entries_repaired_total") as u64
    }
}

impl ModelNode {
    async fn start(kind: ModelKind) -> Self {
        let spec = if kind == ModelKind::Wide { wide() } else { ServerSpec::toy() };
        let cost = Duration::from_millis(30);
        let server = ModelServer::start(ServerSpec { call_cost: cost, ..spec }).await;
        let link = FaultProxy::start(&server.addr().to_string()).await;
        Self { kind, server, link }
    }
}

/// The model of tests/chaos-models/wide.
fn wide() -> ServerSpec {
    let compute = |row: &[f32]| (0..WIDTH).map(|place| row[0] + STEP * place as f32).collect();
    ServerSpec {
        model: ModelKind::Wide.name().to_owned(),
        version: 1,
        inputs: vec![TensorSpec::text("start", &[1])],
        output: TensorSpec::new("ramp", &[WIDTH]),
        compute: Arc::new(compute),
        ..ServerSpec::toy()
    }
}
