//! Jobs of a megabyte: a worker claims, holds and sends at most `BATCH_MAX_BYTES` plus one job.

use std::time::Duration;

use tempfile::TempDir;
use tepal_shared::{
    job::{JobId, Stream},
    queue::work::{Settlement, TakeRequest},
};
use tepal_tests::model_server::{Behaviour, CallRecord, ModelServer, ServerSpec, TensorSpec};

use crate::{
    queue::{Queue, running},
    settings::Settings,
};

/// The default of `BATCH_MAX_BYTES`.
const LIMIT: usize = 1 << 20;
/// Rows of a job, and the values of a row.
const ROWS: usize = 10;
const VALUES: usize = 25_000;
/// Size of a job as a tensor of 32-bit floats; its JSON is a little longer.
const JOB: usize = 4 * ROWS * VALUES;
/// Without its sample.
const WIDE: &str = r#"
name = "wide"
signature = "serving_default"
max_batch = 10

[[inputs]]
name = "x"
datatype = "FP32"
shape = [25000]

[[outputs]]
name = "y"
datatype = "FP32"
shape = [1]
"#;

/// A queue of large jobs, the server of their model, and its description.
struct Wide {
    queue: Queue,
    server: ModelServer,
    models: TempDir,
}

impl Wide {
    async fn start() -> Self {
        let models = tempfile::tempdir().unwrap();
        std::fs::create_dir(models.path().join("wide")).unwrap();
        let description = format!("sample = {}{WIDE}", input(1));
        std::fs::write(models.path().join("wide/model.toml"), description).unwrap();
        let spec = ServerSpec {
            model: "wide".to_owned(),
            inputs: vec![TensorSpec::new("x", &[VALUES])],
            output: TensorSpec::new("y", &[1]),
            compute: std::sync::Arc::new(|row| vec![row[0]]),
            ..ServerSpec::toy()
        };
        Self { queue: Queue::start().await.of("wide"), server: ModelServer::start(spec).await, models }
    }

    fn settings(&self) -> Settings {
        Settings::serving(&self.server).with_model(self.models.path(), "wide")
    }

    async fn submit(&self, jobs: usize) -> Vec<JobId> {
        self.queue.submit_all((0..jobs).map(|_| input(ROWS))).await
    }

    async fn in_flight_bytes(&self) -> usize {
        JOB * usize::try_from(self.queue.in_flight().await).unwrap()
    }
}

fn input(rows: usize) -> String {
    let row = format!("[{}]", vec!["1.5"; VALUES].join(","));
    format!("[{}]", vec![row; rows].join(","))
}

fn bytes(call: &CallRecord) -> usize {
    size_of_val(call.values.as_slice())
}

#[tokio::test]
async fn no_call_carries_more_than_the_limit_of_bytes_and_one_job() {
    let wide = Wide::start().await;
    let ids = wide.submit(24).await;

    let _worker = wide.queue.worker(wide.settings()).await;
    wide.queue.all_completed(&ids).await;

    let calls: Vec<_> = wide.server.calls().iter().map(bytes).collect();
    assert!(calls.iter().all(|bytes| *bytes < LIMIT + JOB), "{calls:?}");
    wide.queue.assert_drained().await;
}

#[tokio::test]
async fn a_worker_claims_no_more_than_the_limit_of_bytes_and_one_job() {
    let wide = Wide::start().await;
    wide.server.set_behaviour(Behaviour::Hang);
    wide.submit(24).await;

    let _worker = wide.queue.worker(wide.settings().one_at_a_time()).await;
    running(&wide.server, 1).await;

    let claimed = wide.in_flight_bytes().await;
    assert!((JOB..LIMIT + JOB).contains(&claimed), "{claimed}");
}

#[tokio::test]
async fn jobs_that_are_due_again_are_claimed_within_the_limit_too() {
    let wide = Wide::start().await;
    let ids = wide.submit(20).await;
    let request = TakeRequest {
        partition: 0,
        consumer: "another",
        streams: &Stream::all_of(wide.queue.model),
        limit: ids.len(),
        max_bytes: usize::MAX,
        due_from: None,
    };
    let granted = wide.queue.store.work.take(&request).await.unwrap().deliveries;
    let settlements: Vec<_> =
        granted.iter().map(|delivery| (delivery.attempt.claim, Settlement::Release)).collect();
    wide.queue.store.work.settle(&settlements).await.unwrap();
    wide.server.script_next(1, Behaviour::Delay(Duration::from_secs(2)));

    let _worker = wide.queue.worker(wide.settings().one_at_a_time()).await;
    running(&wide.server, 1).await;

    let claimed = wide.in_flight_bytes().await;
    assert!((JOB..LIMIT + JOB).contains(&claimed), "{claimed}");
    wide.queue.all_completed(&ids).await;
}

#[tokio::test]
async fn the_consumers_of_a_process_claim_together_no_more_than_the_limits_of_their_calls() {
    const CONSUMERS: usize = 4;
    const CALLS: usize = 2;
    let wide = Wide::start().await;
    wide.server.set_behaviour(Behaviour::Hang);
    wide.submit(40).await;

    let settings = wide.settings().with("NUM_WORKERS", CONSUMERS).with("MAX_IN_FLIGHT", CALLS);
    let _worker = wide.queue.worker(settings).await;
    running(&wide.server, CONSUMERS * CALLS).await;

    let claimed = wide.in_flight_bytes().await;
    assert!(claimed < CONSUMERS * CALLS * (LIMIT + JOB), "{claimed}");
}

#[tokio::test]
async fn many_large_jobs_need_little_memory() {
    let wide = Wide::start().await;
    let ids = wide.submit(32).await;

    let worker = wide.queue.worker(wide.settings()).await;
    wide.queue.all_completed(&ids).await;

    let peak_mib = peak_mib(worker.pid());
    assert!(peak_mib < 256, "{peak_mib} MiB");
}

/// Peak resident memory of a process.
fn peak_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kib / 1024
}
