//! A queue of its own for each test: a Redis server, the job store on it, and what tests ask it again and again.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;
use tepal_shared::{
    job::{Claim, Job, JobId, JobResult, JobStatus, ModelName, NewJob, Priority, Stream},
    queue::{
        Policy,
        heartbeat::{BackendState, WorkerState},
        intake::Submitted,
        keys::Keys,
        link::{ConnectionSettings, Redis},
        views::QueueState,
        work::{Settled, Settlement, TakeRequest},
    },
    tensor::{DataType, stored},
};
use tepal_tests::{
    model_server::{CallOutcome, CallRecord, ModelServer},
    process::Worker,
    redis::RedisServer,
    wait::eventually,
};

use crate::{settings::Settings, store::Store};

/// Long enough for anything that is to happen, on a machine that does much else.
pub(crate) const SOON: Duration = Duration::from_secs(30);
/// A consumer of no worker.
const ANOTHER_WORKER: &str = "another-worker";

/// A Redis server and the queue that workers find on it.
pub(crate) struct Queue {
    pub(crate) redis: RedisServer,
    pub(crate) store: Store,
    /// The model of its jobs.
    pub(crate) model: ModelName,
}

impl Queue {
    /// On a Redis as it is shipped.
    pub(crate) async fn start() -> Self {
        Self::on(RedisServer::shipped().start().await)
    }

    /// On this Redis.
    pub(crate) fn on(redis: RedisServer) -> Self {
        Self::with_policy(redis, Policy::default())
    }

    /// With other numbers than the default ones.
    pub(crate) fn with_policy(redis: RedisServer, policy: Policy) -> Self {
        let keys = Keys::new("predict_queue");
        let settings = ConnectionSettings::new(&redis.url()).unwrap().for_queue(&keys, policy.partitions);
        let store = Store::new(Redis::open(settings).unwrap(), keys, policy);
        Self { redis, store, model: model() }
    }

    /// The same with jobs of another model.
    pub(crate) fn of(self, model: &str) -> Self {
        Self { model: model.parse().unwrap(), ..self }
    }

    /// Starts a worker and waits until it runs; its model need not be there.
    pub(crate) async fn worker(&self, settings: Settings) -> Worker {
        // The repository may have other models, and they may have another backend.
        let settings = Settings::default().with("MODELS", self.model).and(settings);
        Worker::start(&self.redis.worker_url(), &settings.pairs()).await
    }

    /// Submits rows of floats, JSON text.
    pub(crate) async fn submit(&self, input: impl Into<String>) -> JobId {
        self.submit_job(0, NewJob { model: self.model, ..new_job(input.into()) }).await
    }

    /// Submits one job for each input, in order.
    pub(crate) async fn submit_all(&self, inputs: impl IntoIterator<Item = String>) -> Vec<JobId> {
        let mut ids = Vec::new();
        for input in inputs {
            ids.push(self.submit(input).await);
        }
        ids
    }

    /// Submits any job to a partition.
    pub(crate) async fn submit_job(&self, partition: u8, job: NewJob) -> JobId {
        let id = JobId::new(partition);
        assert_eq!(self.store.intake.submit(id, job).await.unwrap(), Submitted::Accepted);
        id
    }

    /// The job as it stands.
    pub(crate) async fn job(&self, id: JobId) -> Job {
        self.store.views.job(id).await.unwrap().unwrap()
    }

    /// Waits until the job has ended. While Redis is away, it has not.
    pub(crate) async fn ended(&self, id: JobId) -> Job {
        eventually(SOON, "the job's end", async || match self.store.views.job(id).await {
            Ok(Some(job)) if job.status.is_terminal() => Ok(job),
            other => Err(format!("{other:?}")),
        })
        .await
    }

    /// Waits until the job has completed; any other end fails the test.
    pub(crate) async fn completed(&self, id: JobId) -> Job {
        let job = self.ended(id).await;
        assert_eq!(job.status, JobStatus::Completed, "{job:?}");
        job
    }

    /// [`Queue::completed`] for several jobs.
    pub(crate) async fn all_completed(&self, ids: &[JobId]) -> Vec<Job> {
        let mut jobs = Vec::new();
        for id in ids {
            jobs.push(self.completed(*id).await);
        }
        jobs
    }

    /// Waits until the job has failed; gives its error, error code and attempts.
    pub(crate) async fn failed(&self, id: JobId) -> (String, String, u64) {
        let job = self.ended(id).await;
        assert_eq!(job.status, JobStatus::Failed, "{job:?}");
        (job.error.unwrap(), job.error_code.unwrap(), job.attempts)
    }

    /// The fields of the job's hash, as `redis-cli HGETALL` shows them.
    pub(crate) fn hash(&self, id: JobId) -> BTreeMap<String, String> {
        let text = self.redis.cli(&["HGETALL", &self.store.queue.keys().job(id)]);
        let lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
    }

    /// The job's remaining lifetime in seconds; -1 = for ever.
    pub(crate) fn ttl(&self, id: JobId) -> i64 {
        self.redis.cli(&["TTL", &self.store.queue.keys().job(id)]).parse().unwrap()
    }

    /// Whether no work is left: the streams are empty and nothing is pending.
    pub(crate) async fn assert_drained(&self) {
        for partition in self.store.queue.partitions() {
            let state = self.store.views.queue_states(partition, self.model).await.unwrap();
            assert_eq!(state, [QueueState::default(); 3], "partition {partition}");
            for stream in self.store.queue.keys().streams(partition, self.model) {
                assert_eq!(self.redis.cli(&["XLEN", &stream]), "0", "{stream}");
            }
        }
    }

    /// Takes the only job that can be had, as a worker would that then dies.
    pub(crate) async fn take_for_a_dead_worker(&self, id: JobId) -> Claim {
        let request = TakeRequest {
            partition: id.partition(),
            consumer: ANOTHER_WORKER,
            streams: &Stream::all_of(self.model),
            limit: 1,
            max_bytes: usize::MAX,
            due_from: Some(&[const { String::new() }; 3]),
        };
        let take = async || self.store.work.take(&request).await.unwrap().deliveries.pop();
        let claim = eventually(SOON, "the job to be claimed", take).await.attempt.claim;
        assert_eq!(claim.job_id, id);
        claim
    }

    /// Lets the lease of such a job lapse.
    pub(crate) fn lapse(&self, id: JobId) {
        let stream = self.store.queue.keys().stream(id.partition(), stream(Priority::Normal));
        let entry = &self.hash(id)["entry"];
        let idle_ms = self.store.queue.policy().lease.as_millis().to_string();
        self.redis.cli(&[
            "XCLAIM",
            &stream,
            "workers",
            ANOTHER_WORKER,
            "0",
            entry,
            "IDLE",
            &idle_ms,
            "JUSTID",
        ]);
    }

    /// Waits until the job's lease has lapsed, takes it over and gives it back.
    pub(crate) async fn reclaim_and_release(&self, id: JobId) {
        self.reclaim_and_release_after(id, async {}).await;
    }

    /// The same; gives it back after something else.
    pub(crate) async fn reclaim_and_release_after<T>(&self, id: JobId, event: impl Future<Output = T>) {
        let claim = self.take_for_a_dead_worker(id).await;
        event.await;
        let settled = self.store.work.settle(&[(claim, Settlement::Release)]).await.unwrap().remove(0);
        assert_eq!(settled.unwrap(), Settled::Done { repaired: false });
    }

    /// How often the job was given back.
    pub(crate) fn times_released(&self, id: JobId) -> u32 {
        self.hash(id).get("released").map_or(0, |times| times.parse().unwrap())
    }

    /// How many normal jobs a worker holds.
    pub(crate) async fn in_flight(&self) -> u64 {
        self.store.views.queue_states(0, self.model).await.unwrap()[1].in_flight
    }

    /// Waits until the lease of some normal job has lapsed without anybody noticing.
    pub(crate) async fn lapsed(&self, lease_ms: u64) {
        let stream = self.store.queue.keys().stream(0, stream(Priority::Normal));
        let command = ["XPENDING", &stream, "workers", "IDLE", &lease_ms.to_string(), "-", "+", "1"];
        let lapsed = async || !self.redis.cli(&command).is_empty();
        eventually(SOON, "a lapsed lease", lapsed).await;
    }

    /// Waits until the models of so many workers answer.
    pub(crate) async fn backend_is_up_at(&self, workers: usize) {
        let is_up = |state: &str| {
            let state: WorkerState = serde_json::from_str(state).unwrap();
            state.backend_state == BackendState::Ok
        };
        let look = async || {
            let known = self.store.views.workers().await.unwrap();
            let up = known.iter().filter(|worker| is_up(&worker.state)).count();
            if up >= workers { Ok(()) } else { Err(up) }
        };
        eventually(SOON, "the workers' models", look).await;
    }

    /// The large result of a completed job.
    pub(crate) async fn large_result_of(&self, job: &Job) -> Value {
        let text = self.store.views.large_result(job.id).await.unwrap().unwrap();
        assert_eq!(job.result, Some(JobResult::Large { bytes: text.len() }));
        serde_json::from_slice(&text).unwrap()
    }

    /// What the only worker last said of itself; `None` before its first heartbeat.
    pub(crate) async fn worker_state(&self) -> Option<WorkerState> {
        let workers = self.store.views.workers().await.unwrap();
        assert!(workers.len() <= 1, "{workers:?}");
        workers.first().map(|worker| serde_json::from_str(&worker.state).unwrap())
    }

    /// Waits until the only worker says this of its backend.
    pub(crate) async fn backend_is(&self, expected: BackendState) -> WorkerState {
        let look = async || match self.worker_state().await {
            Some(state) if state.backend_state == expected => Ok(state),
            other => Err(format!("{other:?}")),
        };
        eventually(SOON, "the heartbeat to show the backend's state", look).await
    }
}

/// The model that the workers serve.
pub(crate) fn model() -> ModelName {
    "iris".parse().unwrap()
}

/// The stream of its jobs of this priority.
pub(crate) fn stream(priority: Priority) -> Stream {
    Stream { model: model(), priority }
}

/// A job of it with this input, rows of floats as JSON text.
pub(crate) fn new_job(input: String) -> NewJob {
    NewJob::new(model(), stored(&input))
}

/// The result of a completed job, unless it is large.
pub(crate) fn result_of(job: &Job) -> Value {
    serde_json::from_str(job.result.as_ref().and_then(JobResult::inline).unwrap()).unwrap()
}

/// Waits until so many calls run at the same time; gives them.
pub(crate) async fn running(server: &ModelServer, count: usize) -> Vec<CallRecord> {
    let look = async || {
        let mut calls = server.calls();
        calls.retain(|call| call.outcome == CallOutcome::Running);
        if calls.len() >= count { Ok(calls) } else { Err(format!("{} running", calls.len())) }
    };
    eventually(SOON, "calls to run", look).await
}

/// How each call ended.
pub(crate) fn outcomes(server: &ModelServer) -> Vec<CallOutcome> {
    server.calls().iter().map(|call| call.outcome).collect()
}

/// Waits until the calls have ended like this. A server notices an abandoned call a little later than its client.
pub(crate) async fn calls_end(server: &ModelServer, expected: &[CallOutcome]) {
    let look = async || {
        let seen = outcomes(server);
        if seen == expected { Ok(()) } else { Err(format!("{seen:?}")) }
    };
    eventually(SOON, "the end of all calls", look).await;
}

/// Number of rows of each call.
pub(crate) fn rows(server: &ModelServer) -> Vec<usize> {
    server.calls().iter().map(|call| call.rows).collect()
}

/// Rows of floats as a proxy stores them: nested lists, or objects with one for each input. Other text is stored as it is.
pub(crate) fn stored(input: &str) -> Vec<u8> {
    let Ok(Value::Array(rows)) = serde_json::from_str(input) else { return input.into() };
    let mut stored = Vec::new();
    match rows.first() {
        Some(Value::Object(first)) => first.keys().for_each(|name| {
            append(&mut stored, &rows.iter().map(|row| row[name].clone()).collect());
        }),
        _ => append(&mut stored, &Value::Array(rows)),
    }
    stored
}

fn append(stored: &mut Vec<u8>, tensor: &Value) {
    let (mut shape, mut value) = (Vec::new(), tensor);
    while let Value::Array(elements) = value {
        shape.push(elements.len());
        value = &elements[0];
    }
    let mut data = Vec::new();
    floats(tensor, &mut data);
    stored::append(stored, DataType::Fp32, &shape, &data);
}

fn floats(value: &Value, data: &mut Vec<u8>) {
    match value {
        Value::Array(elements) => elements.iter().for_each(|element| floats(element, data)),
        number => data.extend((number.as_f64().unwrap() as f32).to_le_bytes()),
    }
}
