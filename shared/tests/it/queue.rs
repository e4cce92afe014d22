//! The queue of one test in a real Redis: the store under test, and a plain connection that reads the keys and
//! lets leases lapse without waiting for them.

use std::{
    collections::HashSet,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use redis::{Cmd, FromRedisValue, RedisError, Value, aio::MultiplexedConnection};
use tepal_shared::{
    job::{Claim, Delivery, Job, JobId, ModelName, NewJob, Priority, Stream, owner::View},
    queue::{
        Policy,
        intake::{Origin, Submitted},
        keys::{GROUP, Keys, inbox},
        link::{ConnectionSettings, Redis},
        work::{Granted, Settled, Settlement, TakeRequest},
    },
};
use tepal_tests::redis::{Deployment, RedisServer};
use tokio::time::timeout;

use crate::store::Store;

/// Longest wait for something that takes milliseconds.
pub(crate) const SOON: Duration = Duration::from_secs(20);
/// Where a look for due entries begins.
pub(crate) static FROM_START: [String; 3] = [const { String::new() }; 3];
/// The streams of ordinary jobs.
static STREAMS: LazyLock<[Stream; 3]> = LazyLock::new(|| Stream::all_of(model()));

/// See the module. Clones are the same queue.
#[derive(Clone)]
pub(crate) struct Queue {
    pub(crate) store: Store,
    pub(crate) servers: Arc<Deployment>,
    /// To the server of the first partition.
    connection: MultiplexedConnection,
}

impl Queue {
    /// A queue in servers of its own.
    pub(crate) async fn start() -> Self {
        Self::on(&Arc::new(Deployment::start(&RedisServer::options()).await)).await
    }

    /// A queue in one server of its own, however the tests are run. For tests in a module `one_server`.
    pub(crate) async fn alone() -> Self {
        Self::on_server(RedisServer::start().await).await
    }

    /// A queue in this server.
    pub(crate) async fn on_server(server: RedisServer) -> Self {
        Self::on(&Arc::new(Deployment::Standalone(Box::new(server)))).await
    }

    async fn on(servers: &Arc<Deployment>) -> Self {
        let settings = ConnectionSettings::new(&servers.url()).unwrap();
        Self::with_settings(servers, settings.with_patience(SOON)).await
    }

    /// A queue in these servers. Its store reaches the server of its partition at another address.
    pub(crate) async fn through(servers: &Arc<Deployment>, address: &str, patience: Duration) -> Self {
        let settings = ConnectionSettings::new(&servers.url_through(address).await).unwrap();
        Self::with_settings(servers, settings.with_patience(patience)).await
    }

    /// A queue in these servers whose store uses these settings.
    pub(crate) async fn with_settings(servers: &Arc<Deployment>, settings: ConnectionSettings) -> Self {
        let keys = unused_keys(servers.is_cluster());
        let redis = open(settings, &keys);
        timeout(SOON, redis.up()).await.unwrap();
        // A machine that is slow for a moment must not make a lease lapse.
        let policy = Policy { lease: Duration::from_secs(60), ..Policy::default() };
        let store = Store::new(redis, keys, policy);
        Self { store, servers: Arc::clone(servers), connection: servers.first().connection().await }
    }

    /// The server of the queue's first partition.
    pub(crate) fn server(&self) -> &RedisServer {
        self.servers.first()
    }

    /// The same queue with a new plain connection, after the server was restarted.
    pub(crate) async fn reconnected(&self) -> Self {
        Self { connection: self.server().connection().await, ..self.clone() }
    }

    /// Another, empty queue in the same servers.
    pub(crate) fn another(&self) -> Self {
        let keys = unused_keys(self.servers.is_cluster());
        let store = Store::new(self.store.queue.redis().clone(), keys, self.store.queue.policy().clone());
        Self { store, ..self.clone() }
    }

    /// The same queue over another connection with these settings.
    pub(crate) fn over(&self, settings: ConnectionSettings) -> Self {
        let keys = self.store.queue.keys().clone();
        let store = Store::new(open(settings, &keys), keys, self.store.queue.policy().clone());
        Self { store, ..self.clone() }
    }

    /// The same queue under another policy.
    pub(crate) fn with_policy(&self, change: impl FnOnce(&mut Policy)) -> Self {
        let mut policy = self.store.queue.policy().clone();
        change(&mut policy);
        Self {
            store: Store::new(self.store.queue.redis().clone(), self.store.queue.keys().clone(), policy),
            ..self.clone()
        }
    }

    /// Runs a command past the store.
    #[track_caller]
    pub(crate) fn redis<T: FromRedisValue>(&self, words: &[&str]) -> impl Future<Output = T> + use<T> {
        let caller = std::panic::Location::caller();
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        let connection = self.connection.clone();
        async move {
            let reply = run(command, connection).await.and_then(|reply| Ok(redis::from_redis_value(reply)?));
            reply.unwrap_or_else(|error| panic!("{caller}: {error}"))
        }
    }

    /// The plain connection.
    pub(crate) fn connection(&self) -> MultiplexedConnection {
        self.connection.clone()
    }

    /// Submits an ordinary job.
    pub(crate) async fn submit(&self) -> JobId {
        self.submit_at(Priority::Normal).await
    }

    /// Submits an ordinary job of this priority.
    pub(crate) async fn submit_at(&self, priority: Priority) -> JobId {
        self.submit_job(&NewJob { priority, ..new_job() }).await
    }

    /// Submits this job, which must be accepted.
    pub(crate) async fn submit_job(&self, job: &NewJob) -> JobId {
        let id = JobId::new(0);
        assert_eq!(self.store.intake.submit(id, job.clone()).await.unwrap(), Submitted::Accepted);
        id
    }

    /// Takes up to `limit` jobs, due ones first.
    pub(crate) async fn take(&self, consumer: &str, limit: usize) -> Granted {
        self.store.work.take(&TakeRequest { limit, ..all(consumer) }).await.unwrap()
    }

    /// Takes up to `limit` jobs, due ones first. Returns their claims.
    pub(crate) async fn claims(&self, consumer: &str, limit: usize) -> Vec<Claim> {
        claims(&self.take(consumer, limit).await)
    }

    /// Takes the only job that can be taken.
    #[track_caller]
    pub(crate) fn take_one(&self, consumer: &str) -> impl Future<Output = Claim> {
        let delivery = self.take_delivery(consumer);
        async move { delivery.await.attempt.claim }
    }

    /// Takes the only available job, with its input.
    #[track_caller]
    pub(crate) fn take_delivery(&self, consumer: &str) -> impl Future<Output = Delivery> {
        let caller = std::panic::Location::caller();
        async move {
            let mut granted = self.take(consumer, 10).await;
            assert_eq!(granted.deliveries.len(), 1, "{caller}: {granted:?}");
            granted.deliveries.remove(0)
        }
    }

    /// The ids of the jobs that a consumer can take now.
    pub(crate) async fn takeable(&self, consumer: &str) -> Vec<JobId> {
        ids(&self.take(consumer, 1_000).await)
    }

    /// Submits a job and takes it.
    pub(crate) async fn submit_and_take(&self, consumer: &str) -> Claim {
        let id = self.submit().await;
        let attempt = self.take_one(consumer).await;
        assert_eq!(attempt.job_id, id);
        attempt
    }

    /// Settles one claim.
    pub(crate) async fn settle(&self, claim: &Claim, settlement: Settlement) -> Settled {
        self.store.work.settle(&[(*claim, settlement)]).await.unwrap().remove(0).unwrap()
    }

    /// Renews the lease of one claim as `consumer`. Returns whether it still holds the job.
    pub(crate) async fn renews(&self, consumer: &str, claim: &Claim) -> bool {
        self.store.work.renew(0, consumer, &[*claim]).await.unwrap().is_empty()
    }

    /// The job, which must exist.
    pub(crate) async fn job(&self, id: JobId) -> Job {
        self.store.views.job(id).await.unwrap().unwrap()
    }

    /// A field of the job's hash.
    pub(crate) async fn field(&self, id: JobId, field: &str) -> Option<String> {
        self.redis(&["HGET", &self.store.queue.keys().job(id), field]).await
    }

    /// Sets a field of the job's hash, as the passing of time would.
    pub(crate) async fn set_field(&self, id: JobId, field: &str, value: &str) {
        self.redis::<u64>(&["HSET", &self.store.queue.keys().job(id), field, value]).await;
    }

    /// The stream and the id of an outstanding job's entry.
    pub(crate) async fn entry(&self, id: JobId) -> (String, String) {
        let priority = self.field(id, "priority").await;
        let priority = priority.map_or(Priority::Normal, |word| word.parse().unwrap());
        let stream = Stream { model: self.field(id, "m").await.unwrap().parse().unwrap(), priority };
        (self.store.queue.keys().stream(0, stream), self.field(id, "entry").await.unwrap())
    }

    /// Reads the next new entry as a blocking read of `consumer` would, without starting its job. Returns whether there was one.
    pub(crate) async fn read(&self, consumer: &str, stream: Stream) -> bool {
        let (stream, inbox) = (self.store.queue.keys().stream(0, stream), inbox(consumer));
        let words = ["XREADGROUP", "GROUP", GROUP, &inbox, "COUNT", "1", "STREAMS", &stream, ">"];
        self.redis::<redis::Value>(&words).await != redis::Value::Nil
    }

    /// The same of a normal entry that is there.
    pub(crate) async fn deliver(&self, consumer: &str) {
        assert!(self.read(consumer, stream(Priority::Normal)).await);
    }

    /// Makes the time of a lease pass for all entries of `consumer`: its leases lapse, or its retries are due.
    pub(crate) async fn age(&self, consumer: &str) {
        for stream in all_streams() {
            let stream = self.store.queue.keys().stream(0, stream);
            for (entry, ..) in self.owned(&stream, consumer).await {
                self.age_entry(&stream, &entry, consumer).await;
            }
        }
    }

    /// Makes the time of a lease pass for one job of `consumer`.
    pub(crate) async fn age_job(&self, id: JobId, consumer: &str) {
        let (stream, entry) = self.entry(id).await;
        self.age_entry(&stream, &entry, consumer).await;
    }

    async fn age_entry(&self, stream: &str, entry: &str, consumer: &str) {
        let idle = self.store.queue.policy().lease.as_millis().to_string();
        let words = ["XCLAIM", stream, GROUP, consumer, "0", entry, "IDLE", &idle, "JUSTID"];
        assert_eq!(self.redis::<Vec<String>>(&words).await, [entry]);
    }

    /// Idle time of the job's entry, which `consumer` owns.
    pub(crate) async fn idle(&self, id: JobId, consumer: &str) -> Duration {
        let (stream, entry) = self.entry(id).await;
        let owned = self.owned(&stream, consumer).await;
        let (_, _, idle_ms, _) = owned.iter().find(|(owned, ..)| *owned == entry).unwrap();
        Duration::from_millis(*idle_ms)
    }

    async fn owned(&self, stream: &str, consumer: &str) -> Vec<(String, String, u64, u64)> {
        if self.redis::<u64>(&["EXISTS", stream]).await == 0 {
            return Vec::new();
        }
        self.redis(&["XPENDING", stream, GROUP, "-", "+", "100000", consumer]).await
    }

    /// Makes the charge of an ended job due.
    pub(crate) async fn make_due(&self, id: JobId) {
        let [key, ..] = self.store.queue.keys().quota(0);
        let charges: Vec<String> = self.redis(&["ZRANGE", &key, "0", "-1"]).await;
        let charge = charges.iter().find(|charge| charge.contains(&id.to_string())).unwrap();
        let (_, rest) = charge.split_once(' ').unwrap();
        self.redis::<u64>(&["ZREM", &key, charge]).await;
        self.redis::<u64>(&["ZADD", &key, "0", &format!("0000000000001 {rest}")]).await;
    }

    /// Every key of the queue's first partition.
    pub(crate) async fn all_keys(&self) -> HashSet<String> {
        let prefix = self.store.queue.keys().log(0).replace("log", "*");
        self.redis(&["KEYS", &prefix]).await
    }
}

/// Runs a command, in a cluster at the node that has its key.
async fn run(command: Cmd, mut connection: MultiplexedConnection) -> Result<Value, RedisError> {
    let reply: Result<Value, _> = command.query_async(&mut connection).await;
    let Some((address, _)) = reply.as_ref().err().and_then(RedisError::redirect_node) else { return reply };
    let client = redis::Client::open(format!("redis://{address}"))?;
    command.query_async(&mut client.get_multiplexed_async_connection().await?).await
}

/// Opens a connection to all servers. The keys of this queue, of all partitions that there can be, are at every primary of a cluster.
fn open(settings: ConnectionSettings, keys: &Keys) -> Redis {
    let settings = if settings.is_cluster() { settings.for_queue(keys, 256) } else { settings };
    Redis::open(settings).unwrap()
}

fn unused_keys(is_cluster: bool) -> Keys {
    static USED: AtomicU64 = AtomicU64::new(0);
    let name = format!("q{}", USED.fetch_add(1, Ordering::Relaxed));
    if is_cluster { Keys::in_cluster(name) } else { Keys::new(name) }
}

/// A caller that sees every job, without ids of a request.
pub(crate) const ANYONE: Origin<'_> =
    Origin { view: View::All, charge: None, request_id: None, traceparent: None };

/// A valid job.
/// Scripts do not look into inputs, so that of a test is text.
pub(crate) const INPUT: &str = "[[5.1,3.5,1.4,0.2]]";

pub(crate) fn new_job() -> NewJob {
    NewJob::new(model(), INPUT.into())
}

/// The model of ordinary jobs.
pub(crate) fn model() -> ModelName {
    "iris".parse().unwrap()
}

/// Another model in the same partition.
pub(crate) fn other() -> ModelName {
    "clip-v1.0".parse().unwrap()
}

/// The streams of both models.
pub(crate) fn all_streams() -> Vec<Stream> {
    streams_of(&[model(), other()])
}

/// The streams of these models, in this order.
pub(crate) fn streams_of(models: &[ModelName]) -> Vec<Stream> {
    models.iter().flat_map(|model| Stream::all_of(*model)).collect()
}

/// The stream of ordinary jobs of this priority.
pub(crate) fn stream(priority: Priority) -> Stream {
    Stream { model: model(), priority }
}

/// A request for everything there is.
pub(crate) fn all(consumer: &str) -> TakeRequest<'_> {
    TakeRequest {
        partition: 0,
        consumer,
        streams: &*STREAMS,
        limit: 1_000,
        max_bytes: usize::MAX,
        due_from: Some(&FROM_START),
    }
}

/// The jobs that were granted, in order.
pub(crate) fn ids(granted: &Granted) -> Vec<JobId> {
    claims(granted).iter().map(|claim| claim.job_id).collect()
}

/// The claims of the jobs that were granted, in order.
pub(crate) fn claims(granted: &Granted) -> Vec<Claim> {
    granted.deliveries.iter().map(|delivery| delivery.attempt.claim).collect()
}

/// The jobs that failed instead of being granted, with their error codes.
pub(crate) fn ended(granted: &Granted) -> Vec<(JobId, String)> {
    granted.ended.iter().map(|job| (job.job_id, job.code.clone())).collect()
}

/// The settlement of a success.
pub(crate) fn complete() -> Settlement {
    Settlement::Complete(r#"{"prediction":0}"#.to_owned())
}

/// The settlement of a failure for good.
pub(crate) fn fail() -> Settlement {
    Settlement::Fail { code: "invalid_argument".to_owned(), error: "The model refused the input".to_owned() }
}

/// Done without any repair.
pub(crate) const DONE: Settled = Settled::Done { repaired: false };
