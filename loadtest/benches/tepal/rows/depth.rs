//! Throughput and memory at a constant backlog: a feeder replaces the jobs that a worker takes.

use std::time::{Duration, Instant};

use super::{Detail, Measured, Row, Target, say};
use crate::series::Series;
use crate::{Scale, parts, queue::Queue};

const TASKS: usize = 64;
/// Most jobs submitted between two reads of the length.
const PORTION: usize = 500;

pub(super) async fn measure(measured: &mut Measured, scale: Scale) {
    let redis = parts::redis().await;
    let queue = Queue::of(&redis).await;
    let deepest = scale.jobs * 5;
    let depths = [deepest / 1_000, deepest / 100, deepest / 10, deepest];
    let (mut rates, mut bytes) = ([const { Series::new() }; 4], [const { Series::new() }; 4]);
    for round in 0..scale.rounds {
        for (number, depth) in depths.into_iter().enumerate() {
            let empty = queue.data_bytes().await;
            queue.fill(depth, TASKS).await;
            let waiting = (queue.data_bytes().await - empty) / depth as f64;
            let rate = rate_at(&redis, &queue, depth, scale.length).await;
            queue.clear().await;
            say(round, &format!("{depth} waiting"), rate, "/s");
            say(round, &format!("{depth} waiting"), waiting, "bytes each");
            rates[number].push(rate);
            bytes[number].push(waiting);
        }
    }
    let lines = depths.iter().zip(rates.iter().zip(&bytes)).map(|(depth, (rate, bytes))| {
        vec![crate::series::number(*depth as f64), rate.to_string(), bytes.to_string()]
    });
    measured.details.push(Detail {
        title: "Backlogs",
        text: "Jobs submitted and finished per second while the backlog stays at that length, both at once, with one \
               worker and ONNX Iris; and what each waiting job takes of Redis's memory. Few jobs carry the fixed \
               cost of the keys of a queue."
            .to_owned(),
        head: vec!["waiting jobs", "jobs/s, submitted and finished", "bytes per waiting job"],
        lines: lines.collect(),
    });
    let [short, .., long] = rates;
    let [_, small, .., large] = bytes;
    let [first, last] = [depths[0], depths[3]].map(|depth| crate::series::number(depth as f64));
    let what = format!("throughput with {last} waiting jobs over that with {first}");
    measured.rows.push(Row::ratio(&what, short, long, "/s", Target::AtLeast(0.9)));
    let what = format!(
        "memory per waiting job with {last} over that with {}",
        crate::series::number(depths[1] as f64)
    );
    measured.rows.push(Row::ratio(&what, small, large, "bytes", Target::AtMost(1.1)));
}

/// Jobs finished per second while `depth` jobs wait.
async fn rate_at(
    redis: &tepal_tests::redis::RedisServer,
    queue: &Queue,
    depth: usize,
    length: Duration,
) -> f64 {
    let _worker = parts::worker(redis, &[]).await;
    while queue.length().await >= depth {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (started, mut submitted) = (Instant::now(), 0);
    let at_start = queue.length().await;
    while started.elapsed() < length {
        let missing = depth.saturating_sub(queue.length().await).min(PORTION);
        if missing == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        queue.fill(missing, TASKS).await;
        submitted += missing;
    }
    let finished = at_start + submitted - queue.length().await;
    finished as f64 / started.elapsed().as_secs_f64()
}
