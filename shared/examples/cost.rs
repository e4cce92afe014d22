//! What one Iris job costs Redis: the memory of a finished job, indexes included, and the CPU time of its whole life.
//!
//! ```text
//! cargo run -p tepal-shared --example cost [number of jobs]
//! ```
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement prints its figures")]

use std::sync::Arc;

use futures_util::future::join_all;
use tepal_shared::{
    job::{Delivery, JobId, NewJob, Stream},
    queue::{
        Policy, Queue,
        intake::Intake,
        keys::Keys,
        link::{ConnectionSettings, Redis},
        work::{Settlement, TakeRequest, Work},
    },
};
use tepal_tests::redis::RedisServer;

const WARM_UP: usize = 1_000;
/// Jobs that are submitted, and taken, at the same time: as under load.
const BATCH: usize = 64;
const RESULT: &str =
    r#"{"prediction":0,"class_name":"setosa","probabilities":[0.97926176,0.020738153,1.0239e-7]}"#;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let shipped = concat!("include ", env!("CARGO_MANIFEST_DIR"), "/../compose/redis.conf");
    let own_log = "logfile redis.log";
    let settings: [(&str, &[&str]); 2] =
        [("stock settings", &[]), ("compose/redis.conf", &[shipped, own_log])];
    let jobs = std::env::args().nth(1).map_or(100_000, |argument| argument.parse().unwrap());
    println!("{jobs} jobs in batches of {BATCH}");
    for (name, lines) in settings {
        let options = lines.iter().fold(RedisServer::options(), |options, line| options.config(line));
        let server = options.start().await;
        let redis = Redis::open(ConnectionSettings::new(&server.url()).unwrap()).unwrap();
        redis.up().await;
        let queue = Queue::new(redis, Keys::new("predict_queue"), Policy::default());
        let roles = (Intake::new(queue.clone()), Work::new(queue));
        run(&roles, WARM_UP).await;
        let before = Usage::of(&server);
        run(&roles, jobs).await;
        let after = Usage::of(&server);
        let per_job = |before: f64, after: f64| (after - before) / jobs as f64;
        println!(
            "{name}: {:.0} bytes per finished job; CPU {:.1} us per job, of which scripts {:.1} us",
            per_job(before.memory_bytes, after.memory_bytes),
            per_job(before.cpu_s, after.cpu_s) * 1e6,
            per_job(before.scripts_us, after.scripts_us),
        );
    }
}

/// A row of the Iris model as stored tensors.
const ROW: &[u8] = b"\xb2\x01\x04\x33\x33\xa3\x40\0\0\x60\x40\x33\x33\xb3\x3f\xcd\xcc\x4c\x3e";

/// Submits, takes and completes so many jobs.
async fn run((intake, work): &(Intake, Work), jobs: usize) {
    let model = "iris".parse().unwrap();
    let job =
        Arc::new(NewJob { request_id: Some(JobId::new(0).to_string()), ..NewJob::new(model, ROW.to_vec()) });
    for first in (0..jobs).step_by(BATCH) {
        let batch = BATCH.min(jobs - first);
        join_all((0..batch).map(async |_| intake.submit(JobId::new(0), Arc::clone(&job)).await.unwrap()))
            .await;
        let request = TakeRequest {
            partition: 0,
            consumer: "w-1",
            streams: &Stream::all_of(model),
            limit: batch,
            max_bytes: usize::MAX,
            due_from: None,
        };
        let granted = work.take(&request).await.unwrap();
        assert_eq!(granted.deliveries.len(), batch);
        let complete =
            |delivery: &Delivery| (delivery.attempt.claim, Settlement::Complete(RESULT.to_owned()));
        let settlements: Vec<_> = granted.deliveries.iter().map(complete).collect();
        work.settle(&settlements).await.unwrap();
    }
}

/// What Redis has used so far.
struct Usage {
    memory_bytes: f64,
    cpu_s: f64,
    scripts_us: f64,
}

impl Usage {
    fn of(server: &RedisServer) -> Self {
        let info = ["memory", "cpu", "commandstats"].map(|section| server.cli(&["INFO", section])).concat();
        let number = |names: &[&str]| -> f64 {
            let rest = names.iter().fold(info.as_str(), |rest, name| rest.split_once(name).unwrap().1);
            let end = rest.find(|digit: char| !digit.is_ascii_digit() && digit != '.').unwrap();
            rest[..end].parse().unwrap()
        };
        Self {
            memory_bytes: number(&["used_memory:"]),
            cpu_s: number(&["used_cpu_user:"]) + number(&["used_cpu_sys:"]),
            scripts_us: number(&["cmdstat_evalsha:", "usec="]),
        }
    }
}
