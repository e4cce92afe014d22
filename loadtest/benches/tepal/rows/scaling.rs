//! Several workers, each in its own process, with a model call of 50 ms.

use std::time::Duration;

use tepal_tests::model_server::{ModelServer, ServerSpec};

use super::{Detail, Measured, Row, Target, say};
use crate::series::Series;
use crate::{Scale, parts, queue::Queue};

const WORKERS: [usize; 5] = [1, 2, 4, 8, 16];
const CALL: Duration = Duration::from_millis(50);
/// Jobs in one call, and calls at a time of one worker. With the length of a call, they give the highest rate.
const JOBS_PER_CALL: usize = 4;
const CALLS_AT_A_TIME: usize = 4;

pub(super) async fn measure(measured: &mut Measured, scale: Scale) {
    let redis = parts::redis().await;
    let queue = Queue::of(&redis).await;
    let server = ModelServer::start(ServerSpec { call_cost: CALL, ..ServerSpec::iris() }).await;
    let mut rates = [const { Series::new() }; WORKERS.len()];
    for round in 0..scale.rounds {
        for (count, rates) in WORKERS.into_iter().zip(&mut rates) {
            let rate = rate(&redis, &queue, server.addr().port(), count, scale.length).await;
            say(round, &format!("{count} workers"), rate, "/s");
            rates.push(rate);
        }
    }
    let [one, rest @ ..] = &rates;
    let mut lines = vec![vec!["1".to_owned(), one.to_string(), String::new()]];
    for (count, rates) in WORKERS[1..].iter().zip(rest) {
        let expected = one.times(*count as f64);
        let what = format!("{count} workers over {count} times one, model call of 50 ms");
        lines.push(vec![count.to_string(), rates.to_string(), rates.over(&expected).to_string()]);
        measured.rows.push(Row::ratio(&what, expected, rates.clone(), "/s", Target::AtLeast(0.95)));
    }
    measured.details.push(Detail {
        title: "Workers",
        text: format!(
            "Each worker is a process with one consumer that makes {CALLS_AT_A_TIME} calls at a time of at most \
             {JOBS_PER_CALL} jobs. The model server (in the benchmark's own process) waits 50 ms a call."
        ),
        head: vec!["workers", "jobs/s", "over k times one"],
        lines,
    });
}

async fn rate(
    redis: &tepal_tests::redis::RedisServer,
    queue: &Queue,
    model_port: u16,
    count: usize,
    length: Duration,
) -> f64 {
    let (port, rows, calls) =
        (model_port.to_string(), JOBS_PER_CALL.to_string(), CALLS_AT_A_TIME.to_string());
    let env = [
        ("MODEL_BACKEND", "tensorflow_serving"),
        ("TF_SERVING_GRPC_PORT", port.as_str()),
        ("BATCH_MAX_ROWS", rows.as_str()),
        ("MAX_IN_FLIGHT", calls.as_str()),
    ];
    let mut workers = Vec::new();
    for _ in 0..count {
        workers.push(parts::worker(redis, &env).await);
    }
    let highest = (count * JOBS_PER_CALL * CALLS_AT_A_TIME) as f64 / CALL.as_secs_f64();
    queue.fill((highest * (length.as_secs_f64() + 10.0)) as usize, 64).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let rate = queue.rate_for(length).await;
    drop(workers);
    queue.clear().await;
    rate
}
