//! A proxy and a Redis of a test's own, and the job store with which the test plays the worker.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use tepal_shared::{
    job::{Claim, Delivery, JobId, ModelName, NewJob, Priority, Stream},
    queue::{
        Policy,
        heartbeat::{BackendState, ServedModel, WorkerState},
        intake::Submitted,
        keys::Keys,
        link::{ConnectionSettings, Redis},
        work::{Settled, Settlement, TakeRequest},
    },
};
use tepal_tests::{
    http::{Answer, Client, Method},
    process::Proxy,
    redis::RedisServer,
    wait::eventually,
};

use crate::{expect::REQUEST_ID, store::Store};

/// Long enough for anything that is to happen, on a machine that does much else.
pub(crate) const SOON: Duration = Duration::from_secs(30);
/// A body that the reference model takes.
pub(crate) const FLOWER: &str = r#"{"data": [[5.1, 3.5, 1.4, 0.2]]}"#;
/// The rows of [`FLOWER`] as they are stored.
pub(crate) const FLOWER_INPUT: &[u8] =
    b"\xb2\x01\x04\x33\x33\xa3\x40\0\0\x60\x40\x33\x33\xb3\x3f\xcd\xcc\x4c\x3e";
/// What a worker answers for [`FLOWER`].
pub(crate) const SETOSA: &str = r#"{"prediction":0,"class_name":"setosa","probabilities":[0.97,0.02,0.01]}"#;
/// The content type of a body.
pub(crate) const JSON: (&str, &str) = ("content-type", "application/json");

/// See the module.
pub(crate) struct Gateway {
    pub(crate) redis: RedisServer,
    pub(crate) proxy: Proxy,
    pub(crate) store: Store,
    client: Client,
}

impl Gateway {
    /// With the reference model and default settings.
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    /// With these settings of the proxy.
    pub(crate) async fn with(settings: &[(&str, &str)]) -> Self {
        Self::on(RedisServer::shipped().start().await, settings).await
    }

    /// In front of this Redis.
    pub(crate) async fn on(redis: RedisServer, settings: &[(&str, &str)]) -> Self {
        let url = redis.proxy_url();
        Self::through(redis, &url, settings).await
    }

    /// In front of this Redis, which the proxy reaches at another address.
    pub(crate) async fn through(redis: RedisServer, url: &str, settings: &[(&str, &str)]) -> Self {
        let store = store(&redis);
        let proxy = Proxy::start(url, settings).await;
        let gateway = Self { client: proxy.client(), redis, proxy, store };
        gateway.is_ready().await;
        gateway
    }

    /// Waits until the proxy has found Redis.
    pub(crate) async fn is_ready(&self) {
        let ready = async || self.client.get("/readyz").await.status == 200;
        eventually(SOON, "the proxy to find Redis", ready).await;
    }

    /// Waits until `/health` says this, to the byte, with this status.
    #[track_caller]
    pub(crate) fn health_is(&self, status: u16, body: &str) -> impl Future<Output = ()> {
        let body = body.to_owned();
        eventually(SOON, "the state of health", async move || {
            let answer = self.client.get("/health").await;
            if (answer.status, answer.text()) == (status, body.clone()) {
                Ok(())
            } else {
                Err(format!("{} {}", answer.status, answer.text()))
            }
        })
    }

    /// Sends a request with the request id that the assertions expect.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let headers = [&[("x-request-id", REQUEST_ID)], headers].concat();
        self.client.request(method, path, &headers, body.to_owned()).await
    }

    /// `POST /predict` with any bytes.
    pub(crate) async fn post_bytes(&self, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
        let headers = [&[("x-request-id", REQUEST_ID)], headers].concat();
        self.client.request(Method::POST, "/predict", &headers, body).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], "").await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, &[], "").await
    }

    /// `POST` without a body.
    pub(crate) async fn post(&self, path: &str) -> Answer {
        self.send(Method::POST, path, &[], "").await
    }

    /// `POST /predict` with this text as JSON.
    pub(crate) async fn predict(&self, body: &str) -> Answer {
        self.send(Method::POST, "/predict", &[JSON], body).await
    }

    /// `POST /predict` with an idempotency key.
    pub(crate) async fn predict_once(&self, key: &str, body: &str) -> Answer {
        self.send(Method::POST, "/predict", &[JSON, ("idempotency-key", key)], body).await
    }

    /// Submits the flower over HTTP.
    pub(crate) async fn submit(&self) -> JobId {
        accepted(&self.predict(FLOWER).await)
    }

    /// Submits the flower past the proxy.
    pub(crate) async fn store_job(&self, priority: Priority) -> JobId {
        let (id, job) = (JobId::new(0), NewJob { priority, ..flower() });
        assert_eq!(self.store.intake.submit(id, job).await.unwrap(), Submitted::Accepted);
        id
    }

    /// Takes the waiting jobs of a partition as a worker does.
    pub(crate) async fn take(&self, partition: u8) -> Vec<Claim> {
        self.deliveries(partition).await.iter().map(|delivery| delivery.attempt.claim).collect()
    }

    /// The same, with their inputs.
    async fn deliveries(&self, partition: u8) -> Vec<Delivery> {
        self.deliveries_of(model(), partition).await
    }

    pub(crate) async fn deliveries_of(&self, model: ModelName, partition: u8) -> Vec<Delivery> {
        let (consumer, streams) = ("test-1", &Stream::all_of(model));
        let (limit, max_bytes) = (1000, usize::MAX);
        let request = TakeRequest { partition, consumer, streams, limit, max_bytes, due_from: None };
        self.store.work.take(&request).await.unwrap().deliveries
    }

    /// Takes the only waiting job.
    pub(crate) async fn take_one(&self) -> Claim {
        self.take_delivery().await.attempt.claim
    }

    /// Takes the only waiting job of another model, with its input.
    pub(crate) async fn take_delivery_of(&self, model: &str) -> Delivery {
        let mut deliveries = self.deliveries_of(model.parse().unwrap(), 0).await;
        assert_eq!(deliveries.len(), 1);
        deliveries.remove(0)
    }

    /// Takes the only waiting job, with its input.
    pub(crate) async fn take_delivery(&self) -> Delivery {
        let mut deliveries = self.deliveries(0).await;
        assert_eq!(deliveries.len(), 1);
        deliveries.remove(0)
    }

    /// Settles a claim.
    pub(crate) async fn settle(&self, claim: &Claim, settlement: Settlement) {
        let settled = self.store.work.settle(&[(*claim, settlement)]).await.unwrap().remove(0).unwrap();
        assert_eq!(settled, Settled::Done { repaired: false });
    }

    /// Submits a job and completes it.
    pub(crate) async fn completed(&self) -> JobId {
        let id = self.store_job(Priority::Normal).await;
        self.settle(&self.take_one().await, Settlement::Complete(SETOSA.to_owned())).await;
        id
    }

    /// Submits a job and fails it.
    pub(crate) async fn failed(&self) -> JobId {
        let id = self.store_job(Priority::Normal).await;
        let (code, error) = ("inference_timeout".to_owned(), "Model inference timeout".to_owned());
        self.settle(&self.take_one().await, Settlement::Fail { code, error }).await;
        id
    }

    /// Everything that the job's hash holds. Bytes that are not UTF-8 are replaced.
    pub(crate) fn hash(&self, id: JobId) -> BTreeMap<String, String> {
        let text = self.redis.cli(&["HGETALL", &self.store.queue.keys().job(id)]);
        let mut lines = text.lines().map(str::to_owned);
        let mut fields = BTreeMap::new();
        while let (Some(field), Some(value)) = (lines.next(), lines.next()) {
            fields.insert(field, value);
        }
        fields
    }

    /// The keys in Redis but those that belong to the queue as a whole.
    pub(crate) fn keys(&self) -> BTreeSet<String> {
        let keys = self.redis.cli(&["KEYS", "*"]);
        let is_shared = |key: &&str| key.ends_with(":secret") || key.ends_with(":format");
        keys.lines().filter(|key| !is_shared(key)).map(str::to_owned).collect()
    }

    /// Number of jobs that were ever accepted in the first partition.
    pub(crate) fn log_length(&self) -> u64 {
        self.redis.cli(&["XLEN", &self.store.queue.keys().log(0)]).parse().unwrap()
    }

    /// Says that a worker lives and how its backend is. The record comes from the future, so that the worker does not
    /// fall silent on a machine that is slow for a moment.
    pub(crate) fn heartbeat(&self, worker: &str, backend: &str, is_ok: bool, metadata: Option<Value>) {
        self.beat(
            worker,
            &WorkerState {
                host: "here".to_owned(),
                pid: 1,
                version: "0.1.0".to_owned(),
                backend: backend.to_owned(),
                backend_state: state_of(is_ok),
                backend_detail: None,
                metadata,
                models: BTreeMap::new(),
                failed_models: vec![],
                undescribed_models: vec![],
                consumers: 1,
                partitions: 0,
                in_flight: 0,
            },
        );
    }

    /// The same of a worker that can call these models, and reports them.
    pub(crate) fn heartbeat_with(&self, worker: &str, backend: &str, metadata: Value, models: &[&str]) {
        self.heartbeat(worker, backend, true, Some(metadata));
        let record = self.redis.cli(&["HGET", &self.store.queue.keys().workers(), worker]);
        let (seen, state) = record.split_once(' ').unwrap();
        let mut state: WorkerState = serde_json::from_str(state).unwrap();
        let (backend, description) = (backend.to_owned(), String::new());
        let served = ServedModel { backend, state: BackendState::Ok, description };
        state.models = models.iter().map(|name| ((*name).to_owned(), served.clone())).collect();
        let record = format!("{seen} {}", serde_json::to_string(&state).unwrap());
        self.redis.cli(&["HSET", &self.store.queue.keys().workers(), worker, &record]);
    }

    /// Says that a worker lives and serves these models: name, whether it can be called, hash of the description. The first one is
    /// the default model.
    pub(crate) fn heartbeat_of(&self, worker: &str, models: &[(&str, bool, &str)]) {
        self.heartbeat_of_failing(worker, models, &[], &[]);
    }

    /// The same of a worker that cannot load some models, and waits for the server that describes others.
    pub(crate) fn heartbeat_of_failing(
        &self,
        worker: &str,
        models: &[(&str, bool, &str)],
        failed: &[&str],
        undescribed: &[&str],
    ) {
        let names = |models: &[&str]| models.iter().map(|name| (*name).to_owned()).collect();
        let served = |(name, is_ok, description): &(&str, bool, &str)| {
            let backend = "onnx".to_owned();
            let served =
                ServedModel { backend, state: state_of(*is_ok), description: (*description).to_owned() };
            ((*name).to_owned(), served)
        };
        let is_ok = models.first().is_some_and(|(_, is_ok, _)| *is_ok);
        self.beat(
            worker,
            &WorkerState {
                host: "here".to_owned(),
                pid: 1,
                version: "0.1.0".to_owned(),
                backend: "onnx".to_owned(),
                backend_state: state_of(is_ok),
                backend_detail: None,
                metadata: None,
                models: models.iter().map(served).collect(),
                failed_models: names(failed),
                undescribed_models: names(undescribed),
                consumers: 1,
                partitions: 0,
                in_flight: 0,
            },
        );
    }

    fn beat(&self, worker: &str, state: &WorkerState) {
        let in_an_hour = SystemTime::now() + Duration::from_secs(3600);
        let seen = in_an_hour.duration_since(UNIX_EPOCH).unwrap().as_millis();
        let record = format!("{seen} {}", serde_json::to_string(state).unwrap());
        self.redis.cli(&["HSET", &self.store.queue.keys().workers(), worker, &record]);
    }
}

fn state_of(is_ok: bool) -> BackendState {
    if is_ok { BackendState::Ok } else { BackendState::Down }
}

/// A job store on this Redis, past the proxy.
pub(crate) fn store(redis: &RedisServer) -> Store {
    let keys = Keys::new("predict_queue");
    let settings = ConnectionSettings::new(&redis.url()).unwrap().with_patience(SOON).for_queue(&keys, 1);
    // A machine that is slow for a moment must not make a lease lapse.
    let policy = Policy { lease: Duration::from_secs(60), ..Policy::default() };
    Store::new(Redis::open(settings).unwrap(), keys, policy)
}

/// The id of an accepted job, whose answer must be whole.
#[track_caller]
pub(crate) fn accepted(answer: &Answer) -> JobId {
    let id: JobId =
        answer.json()["job_id"].as_str().unwrap_or_else(|| panic!("{}", answer.text())).parse().unwrap();
    let (location, body) = (format!("/job/{id}"), json!({"job_id": id.to_string(), "status": "pending"}));
    crate::expect::assert_json(answer, 202, &[("location", &location)], &body);
    id
}

/// The model of the gateway.
pub(crate) fn model() -> ModelName {
    "iris".parse().unwrap()
}

/// A job with [`FLOWER_INPUT`].
pub(crate) fn flower() -> NewJob {
    NewJob::new(model(), FLOWER_INPUT.to_vec())
}
