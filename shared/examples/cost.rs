//! What one Iris job costs Redis: the memory of a finished job, indexes included, and the CPU time of its whole life; also of each
//! primary of a cluster.
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
use tepal_tests::redis::{RedisCluster, RedisServer};

const WARM_UP: usize = 1_000;
/// Jobs that are submitted, and taken, at the same time: as under load.
const BATCH: usize = 64;
const RESULT: &str =
    r#"{"prediction":0,"class_name":"setosa","probabilities":[0.97926176,0.020738153,1.0239e-7]}"#;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let shipped = concat!("include ", env!("CARGO_MANIFEST_DIR"), "/../compose/redis.conf");
    let own_log = "logfile redis.log";
    let jobs = std::env::args().nth(1).map_or(100_000, |argument| argument.parse().unwrap());
    println!("{jobs} jobs in batches of {BATCH}");
    let stock = RedisServer::options();
    let shipped = RedisServer::options().config(shipped).config(own_log);
    for (name, options) in [("stock settings", &stock), ("compose/redis.conf", &shipped)] {
        let server = options.clone().start().await;
        measure(name, std::slice::from_ref(&server), &server.url(), 1, jobs).await;
    }
    let cluster = RedisCluster::start(&shipped, 3, 0).await;
    measure("three primaries, PARTITIONS=12", &cluster.primaries, &cluster.url(), 12, jobs).await;
}

async fn measure(name: &str, primaries: &[RedisServer], url: &str, partitions: u16, jobs: usize) {
    let settings = ConnectionSettings::new(url).unwrap();
    let keys = if settings.is_cluster() { Keys::in_cluster("q") } else { Keys::new("q") };
    let redis = Redis::open(settings.for_queue(&keys, partitions)).unwrap();
    redis.up().await;
    let queue = Queue::new(redis, keys, Policy { partitions, ..Policy::default() });
    let roles = (Intake::new(queue.clone()), Work::new(queue));
    run(&roles, partitions, WARM_UP).await;
    let before: Vec<_> = primaries.iter().map(Usage::of).collect();
    run(&roles, partitions, jobs).await;
    let used: Vec<_> =
        primaries.iter().map(Usage::of).zip(&before).map(|(now, then)| now.since(then)).collect();
    let per_job = |of: fn(&Usage) -> f64| used.iter().map(of).sum::<f64>() / jobs as f64;
    println!(
        "{name}: {:.0} bytes per finished job; CPU {:.1} us per job, of which scripts {:.1} us",
        per_job(|used| used.memory_bytes),
        per_job(|used| used.cpu_s) * 1e6,
        per_job(|used| used.scripts_us),
    );
    if used.len() > 1 {
        let each: Vec<_> = used.iter().map(|used| format!("{:.1}", used.cpu_s / jobs as f64 * 1e6)).collect();
        println!("  of that each primary: {} us", each.join(", "));
    }
}

/// A row of the Iris model as stored tensors.
const ROW: &[u8] = b"\xb2\x01\x04\x33\x33\xa3\x40\0\0\x60\x40\x33\x33\xb3\x3f\xcd\xcc\x4c\x3e";

/// Submits, takes and completes so many jobs. Each batch is in the next partition.
async fn run((intake, work): &(Intake, Work), partitions: u16, jobs: usize) {
    let model = "iris".parse().unwrap();
    let job =
        Arc::new(NewJob { request_id: Some(JobId::new(0).to_string()), ..NewJob::new(model, ROW.to_vec()) });
    for (number, first) in (0..jobs).step_by(BATCH).enumerate() {
        let batch = BATCH.min(jobs - first);
        let partition = (number % usize::from(partitions)) as u8;
        let submit = async |_| intake.submit(JobId::new(partition), Arc::clone(&job)).await.unwrap();
        join_all((0..batch).map(submit)).await;
        let request = TakeRequest {
            partition,
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
    fn since(&self, before: &Self) -> Self {
        Self {
            memory_bytes: self.memory_bytes - before.memory_bytes,
            cpu_s: self.cpu_s - before.cpu_s,
            scripts_us: self.scripts_us - before.scripts_us,
        }
    }

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
