//! Jobs that share model calls: throughput and latency by the largest batch. The model server takes 5 ms a call and a little
//! for each row.

use std::sync::Arc;
use std::time::Duration;

use tepal_tests::model_server::{ModelServer, ServerSpec};
use tepal_tests::redis::RedisServer;

use super::latency::{Via, open_loop};
use super::{Detail, Measured, Row, Target, say};
use crate::series::Series;
use crate::{Scale, parts, queue::Queue};

const ROWS: [usize; 6] = [1, 4, 16, 64, 128, 256];
const CALL: Duration = Duration::from_millis(5);
const ROW: Duration = Duration::from_micros(10);
/// Half of the highest rate with one call per job and, as is the default, four calls at a time.
const LOAD: f64 = 400.0;
/// At this rate each job finds an idle worker.
const LONE: f64 = 20.0;

pub(super) async fn measure(measured: &mut Measured, scale: Scale) {
    let redis = parts::redis().await;
    let queue = Arc::new(Queue::of(&redis).await);
    let server =
        ModelServer::start(ServerSpec { call_cost: CALL, row_cost: ROW, ..ServerSpec::iris() }).await;
    let mut rates = [const { Series::new() }; ROWS.len()];
    let mut loaded = [const { [const { Series::new() }; 2] }; ROWS.len()];
    let mut lone = [const { Series::new() }; ROWS.len()];
    for round in 0..scale.rounds {
        for (number, rows) in ROWS.into_iter().enumerate() {
            let worker = worker(&redis, server.addr().port(), rows).await;
            let via = Via::Store(Arc::clone(&queue));
            let alone = open_loop(&redis, &via, LONE, scale.length).await.percentile(0.5);
            lone[number].push(alone);
            let latencies = open_loop(&redis, &via, LOAD, scale.length).await;
            loaded[number][0].push(latencies.percentile(0.5));
            loaded[number][1].push(latencies.percentile(0.99));
            drop(worker);

            let highest = (4 * rows) as f64 / (CALL + ROW * rows as u32).as_secs_f64();
            let jobs = (highest * scale.length.as_secs_f64()) as usize;
            queue.fill(jobs.min(scale.jobs), 64).await;
            let worker = self::worker(&redis, server.addr().port(), rows).await;
            let rate = queue.drained().await.per_second();
            drop(worker);
            queue.clear().await;
            say(round, &format!("batches of up to {rows}"), rate, "/s");
            say(round, &format!("batches of up to {rows}, a lone job, p50"), alone, "ms");
            rates[number].push(rate);
        }
    }
    let lines = ROWS.iter().enumerate().map(|(number, rows)| {
        let [p50, p99] = &loaded[number];
        vec![
            rows.to_string(),
            rates[number].to_string(),
            rates[number].over(&rates[0]).to_string(),
            lone[number].to_string(),
            p50.to_string(),
            p99.to_string(),
        ]
    });
    measured.details.push(Detail {
        title: "Micro-batches",
        text: format!(
            "One worker with its default of four calls at a time; a model server that takes 5 ms a call and 10 us for \
             each row. Latencies from submission to stored result, in milliseconds: of jobs that come one by one \
             ({LONE:.0}/s), and at {LOAD:.0} jobs/s."
        ),
        head: vec!["most rows", "backlog, jobs/s", "over one call per job", "lone p50", "loaded p50", "loaded p99"],
        lines: lines.collect(),
    });
    let last = ROWS.len() - 1;
    let what = "one worker with batches over one call per job, 5 ms a call";
    let [single, batched] = [&rates[0], &rates[last]].map(Clone::clone);
    measured.rows.push(Row::ratio(what, single, batched, "/s", Target::AtLeast(10.0)));
    let what = "a lone job with batches over one call per job, p50";
    let [single, batched] = [&lone[0], &lone[last]].map(Clone::clone);
    measured.rows.push(Row::ratio(what, single, batched, "ms", Target::AtMost(1.1)));
}

async fn worker(redis: &RedisServer, model_port: u16, rows: usize) -> parts::Served {
    let (port, rows) = (model_port.to_string(), rows.to_string());
    let env = [
        ("MODEL_BACKEND", "tensorflow_serving"),
        ("TF_SERVING_GRPC_PORT", port.as_str()),
        ("BATCH_MAX_ROWS", rows.as_str()),
    ];
    parts::worker(redis, &env).await
}
