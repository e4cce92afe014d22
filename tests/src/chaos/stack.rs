//! The processes of a run and the connections between them: every service reaches Redis, and its model server, through its
//! own fault proxy.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::RedisError;
use redis::aio::MultiplexedConnection;
use tokio::sync::{Mutex, RwLock};

use super::Options;
use super::holdings::QUEUE;
use crate::fault_proxy::FaultProxy;
use crate::history::Final;
use crate::http::Client;
use crate::model_server::{ModelServer, ServerSpec};
use crate::process::{Proxy, Worker};
use crate::redis::RedisServer;
use crate::wait::poll;

const PROXIES: usize = 2;
const ONNX_WORKERS: usize = 2;
const SERVED_WORKERS: usize = 2;
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
    pub(super) lock: Mutex<()>,
}

/// A model server and the way to it.
#[derive(Debug)]
pub(super) struct ModelNode {
    pub(super) server: ModelServer,
    pub(super) link: FaultProxy,
}

impl Stack {
    pub(super) async fn start(options: &Options) -> Self {
        // A long run keeps more jobs than the composition's limit holds.
        let redis = RedisServer::shipped().aof(options.fsync).config("maxmemory 0").start().await;
        let mut proxies = Vec::new();
        for _ in 0..PROXIES {
            proxies.push(ProxyNode::start(&redis, options).await);
        }
        let mut workers = Vec::new();
        for number in 0..ONNX_WORKERS + SERVED_WORKERS {
            workers.push(WorkerNode::start(&redis, options, number >= ONNX_WORKERS).await);
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
    async fn start(redis: &RedisServer, options: &Options) -> Self {
        let link = FaultProxy::start(&redis.addr()).await;
        let lease_ms = options.lease.as_millis().to_string();
        let models = models();
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
}

impl WorkerNode {
    async fn start(redis: &RedisServer, options: &Options, is_served: bool) -> Self {
        let link = FaultProxy::start(&redis.addr()).await;
        let model = if is_served { Some(ModelNode::start().await) } else { None };
        let mut env = vec![
            ("LEASE_MS", options.lease.as_millis().to_string()),
            ("MODELS_DIR", models()),
            ("MODEL_NAME", "toy".to_owned()),
            ("LOG_LEVEL", "info,tepal_worker=debug".to_owned()),
            ("INFERENCE_TIMEOUT_MS", "3000".to_owned()),
            ("RETRY_BASE_MS", "200".to_owned()),
            ("DRAIN_TIMEOUT_SECONDS", "5".to_owned()),
        ];
        match &model {
            Some(model) => env.extend([
                ("MODEL_BACKEND", "tensorflow_serving".to_owned()),
                ("TF_SERVING_HOST", "127.0.0.1".to_owned()),
                ("TF_SERVING_GRPC_PORT", model.link.port().to_string()),
            ]),
            // The model itself takes no time. With this, the worker holds jobs when it is hit.
            None => env.push(("BATCH_MAX_WAIT_MS", "50".to_owned())),
        }
        let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let process = Worker::start(&redis.worker_url_at(&link.addr()), &env).await;
        Self { process, link, model, lock: Mutex::default() }
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
    async fn start() -> Self {
        let cost = Duration::from_millis(30);
        let server = ModelServer::start(ServerSpec { call_cost: cost, ..ServerSpec::toy() }).await;
        let link = FaultProxy::start(&server.addr().to_string()).await;
        Self { server, link }
    }
}

fn models() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models").display().to_string()
}
