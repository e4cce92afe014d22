//! The queue of a benchmark: submits through the store; reads lengths, memory and processor time.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use tepal_shared::job::{JobId, ModelName, NewJob, Priority, Stream, owner::View};
use tepal_shared::queue::{
    Policy,
    intake::{Intake, Submitted},
    keys::{Keys, STORED_FORMAT},
    link::{ConnectionSettings, Redis},
};
use tepal_tests::redis::RedisServer;
use tepal_tests::wait::eventually;
use tokio::task::JoinSet;

use crate::{parts::QUEUE_LIMIT, tools::STORED};

/// The pause between two reads of a length.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// A backlog that has not changed for this long is stuck.
const STUCK: Duration = Duration::from_secs(60);

/// One queue on one Redis.
pub(crate) struct Queue {
    intake: Intake,
    connection: MultiplexedConnection,
}

/// How fast a backlog went down.
pub(crate) struct Drained {
    pub(crate) jobs: usize,
    pub(crate) seconds: f64,
}

impl Drained {
    pub(crate) fn per_second(&self) -> f64 {
        self.jobs as f64 / self.seconds
    }
}

impl Queue {
    /// The queue that the services use by default.
    pub(crate) async fn of(redis: &RedisServer) -> Self {
        let keys = Keys::new("predict_queue");
        let settings = ConnectionSettings::new(&redis.url()).expect("a valid address").for_queue(&keys, 1);
        let shared = Redis::open(settings).expect("a valid address");
        shared.up().await;
        let policy = Policy { max_queue_depth: QUEUE_LIMIT, ..Policy::default() };
        let intake = Intake::new(tepal_shared::queue::Queue::new(shared, keys, policy));
        Self { intake, connection: redis.connection().await }
    }

    /// Removes everything.
    pub(crate) async fn clear(&self) {
        let () = self.ask(redis::cmd("FLUSHALL").arg("SYNC")).await;
        // The connection would write it again within seconds, but services are started before.
        let format = Keys::new("predict_queue").format();
        let () = self.ask(redis::cmd("SET").arg(format).arg(STORED_FORMAT)).await;
    }

    /// Loads the script of [`redis_limit`](crate::tools::redis_limit) and returns its hash.
    pub(crate) async fn load_limit_script(&self) -> String {
        let script = "#!lua\nredis.call('HSET', KEYS[1], unpack(ARGV))\n\
                      return redis.call('XADD', KEYS[2], '*', 'id', KEYS[1])";
        self.ask(redis::cmd("SCRIPT").arg("LOAD").arg(script)).await
    }

    /// Submits one job.
    pub(crate) async fn submit(&self) -> JobId {
        submit(&self.intake).await
    }

    /// Submits `jobs` jobs from `tasks` tasks. Returns the elapsed time.
    pub(crate) async fn fill(&self, jobs: usize, tasks: usize) -> Duration {
        let started = Instant::now();
        let left = Arc::new(AtomicUsize::new(jobs));
        let take_one = |left: &AtomicUsize| {
            left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
        };
        let mut submitting = JoinSet::new();
        for _ in 0..tasks {
            let (intake, left) = (self.intake.clone(), Arc::clone(&left));
            submitting.spawn(async move {
                while take_one(&left) {
                    submit(&intake).await;
                }
            });
        }
        submitting.join_all().await;
        started.elapsed()
    }

    /// Submits this job so often, from some tasks.
    pub(crate) async fn fill_with(&self, job: &NewJob, jobs: usize) {
        const TASKS: usize = 16;
        let mut submitting = JoinSet::new();
        for task in 0..TASKS {
            let (intake, job) = (self.intake.clone(), job.clone());
            submitting.spawn(async move {
                for _ in (task..jobs).step_by(TASKS) {
                    submit_job(&intake, JobId::new(0), job.clone()).await;
                }
            });
        }
        submitting.join_all().await;
    }

    /// Runs this job. Returns the time from its first attempt to its end, ms.
    pub(crate) async fn run_time_ms(&self, job: &NewJob) -> f64 {
        let id = JobId::new(0);
        submit_job(&self.intake, id, job.clone()).await;
        let mut read = redis::cmd("HMGET");
        read.arg(self.intake.queue().keys().job(id)).arg(&["waited_ms", "took_ms"]);
        let [waited, took] = eventually(STUCK, "the end of a job", async || {
            let [waited, took]: [Option<f64>; 2] = self.ask(&read).await;
            Some([waited?, took?])
        })
        .await;
        took - waited
    }

    /// The number of unfinished jobs of normal priority of this model.
    pub(crate) async fn waiting_of(&self, model: &str) -> usize {
        self.ask(redis::cmd("XLEN").arg(self.stream_of(model))).await
    }

    /// Cancels what is left of this model.
    pub(crate) async fn cancel_all(&self, model: &str) {
        let entries: Vec<(String, HashMap<String, String>)> =
            self.ask(redis::cmd("XRANGE").arg(self.stream_of(model)).arg("-").arg("+")).await;
        for (_, fields) in entries {
            let id = fields["id"].parse().expect("the id of a job");
            self.intake.cancel(id, View::All).await.expect("Redis answers");
        }
        eventually(STUCK, "the end of all jobs", async || self.waiting_of(model).await == 0).await;
    }

    fn stream_of(&self, model: &str) -> String {
        let model = model.parse().expect("a valid name");
        self.intake.queue().keys().stream(0, Stream { model, priority: Priority::Normal })
    }

    /// Submits from `tasks` tasks for `length`. Returns the jobs per second.
    pub(crate) async fn submit_for(&self, length: Duration, tasks: usize) -> f64 {
        let (started, count) = (Instant::now(), Arc::new(AtomicUsize::new(0)));
        let mut submitting = JoinSet::new();
        for _ in 0..tasks {
            let (intake, count) = (self.intake.clone(), Arc::clone(&count));
            submitting.spawn(async move {
                while started.elapsed() < length {
                    submit(&intake).await;
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        submitting.join_all().await;
        count.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64()
    }

    /// The number of unfinished jobs: entries of finished jobs are deleted.
    pub(crate) async fn length(&self) -> usize {
        self.waiting_of(model().as_str()).await
    }

    /// Jobs finished per second while nobody submits.
    pub(crate) async fn rate_for(&self, length: Duration) -> f64 {
        let (before, started) = (self.length().await, Instant::now());
        tokio::time::sleep(length).await;
        let after = self.length().await;
        assert!(after > 0, "the backlog was too short");
        (before - after) as f64 / started.elapsed().as_secs_f64()
    }

    /// Waits until every job has finished. Time counts from the first finished job, so it excludes the start of the worker.
    pub(crate) async fn drained(&self) -> Drained {
        let full = self.length().await;
        let mut first = None;
        let mut moved = (full, Instant::now());
        loop {
            let (left, now) = (self.length().await, Instant::now());
            if left < full && first.is_none() {
                first = Some((left, now));
            }
            if left == 0 {
                let (first_left, since) = first.unwrap_or((left, now));
                return Drained { jobs: first_left, seconds: (now - since).as_secs_f64() };
            }
            if left != moved.0 {
                moved = (left, now);
            }
            assert!(now - moved.1 < STUCK, "no worker takes the last {left} of {full} jobs");
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Bytes of the data, without the buffers of clients and of the append-only file.
    pub(crate) async fn data_bytes(&self) -> f64 {
        // A hash table counts twice while Redis resizes it.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        let info = self.info("memory").await;
        let field = |name| number(&info, name);
        field("used_memory") - field("mem_clients_normal") - field("mem_aof_buffer")
    }

    /// Processor seconds of all threads of Redis.
    pub(crate) async fn cpu_seconds(&self) -> f64 {
        let info = self.info("cpu").await;
        number(&info, "used_cpu_sys") + number(&info, "used_cpu_user")
    }

    /// Commands that Redis has run, including those inside scripts.
    pub(crate) async fn commands(&self) -> f64 {
        let info = self.info("commandstats").await;
        let calls = info
            .lines()
            .filter_map(|line| line.split_once("calls=")?.1.split(',').next()?.parse::<f64>().ok());
        calls.sum()
    }

    async fn info(&self, section: &str) -> String {
        self.ask(redis::cmd("INFO").arg(section)).await
    }

    async fn ask<T: redis::FromRedisValue>(&self, command: &redis::Cmd) -> T {
        command.query_async(&mut self.connection.clone()).await.expect("Redis answers")
    }
}

/// The model that the services use by default.
fn model() -> ModelName {
    "iris".parse().expect("a valid name")
}

/// Submits as the proxy does.
async fn submit(intake: &Intake) -> JobId {
    let id = JobId::new(0);
    submit_job(
        intake,
        id,
        NewJob { request_id: Some(id.to_string()), ..NewJob::new(model(), STORED.to_vec()) },
    )
    .await;
    id
}

async fn submit_job(intake: &Intake, id: JobId, job: NewJob) {
    let submitted = intake.submit(id, job).await.expect("Redis answers");
    assert!(matches!(submitted, Submitted::Accepted), "{submitted:?}");
}

fn number(info: &str, name: &str) -> f64 {
    let mut values =
        info.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok());
    values.next().unwrap_or_else(|| panic!("INFO has no {name}"))
}
