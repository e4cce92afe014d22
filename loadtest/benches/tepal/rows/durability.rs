//! The cost of `appendfsync always`, the shipped setting, against `everysec`, the setting of the other rows.

use std::sync::Arc;
use std::time::Duration;

use tepal_tests::http::Client;
use tepal_tests::redis::{Fsync, RedisServer};

use super::latency::{Via, open_loop};
use super::{Detail, Measured, say};
use crate::parts::Served;
use crate::series::Series;
use crate::tools::wrk;
use crate::{Scale, parts, queue::Queue};

const LEVELS: [(&str, Fsync); 2] = [("everysec", Fsync::EverySec), ("always", Fsync::Always)];
const MANY: usize = 64;
const PER_SECOND: f64 = 100.0;
const WARM_UP: Duration = Duration::from_secs(1);
const WHAT: [&str; 6] = [
    "`POST /predict`, 64 connections, /s",
    "`POST /predict`, one connection, p50, us",
    "the store's submit without HTTP, 64 tasks, /s",
    "one worker draining a backlog, ONNX Iris, /s",
    "`POST /predict` to result stored, 100 jobs/s, ONNX Iris, p50, ms",
    "the same, p99, ms",
];

/// A queue at one fsync level.
struct Level {
    name: &'static str,
    redis: RedisServer,
    queue: Queue,
    proxy: Served,
    measured: [Series; WHAT.len()],
}

pub(super) async fn measure(measured: &mut Measured, scale: Scale) {
    let mut levels = Vec::new();
    for (name, fsync) in LEVELS {
        levels.push(Level::start(name, fsync).await);
    }
    for round in 0..scale.rounds {
        for level in &mut levels {
            let values = level.measure(scale).await;
            for ((what, value), series) in WHAT.iter().zip(values).zip(&mut level.measured) {
                say(round, &format!("{}: {what}", level.name), value, "");
                series.push(value);
            }
        }
    }
    let line = |(at, what): (usize, &&str)| {
        let mut cells = vec![(*what).to_owned()];
        cells.extend(levels.iter().map(|level| level.measured[at].to_string()));
        cells
    };
    measured.details.push(Detail {
        title: "appendfsync",
        text: "`always` is shipped: Redis answers when the disk has confirmed the write. The rows above are measured with \
               `everysec`, the limits' Redis likewise, since a limit that waits for the disk measures the disk."
            .to_owned(),
        head: ["what"].into_iter().chain(LEVELS.map(|(name, _)| name)).collect(),
        lines: WHAT.iter().enumerate().map(line).collect(),
    });
}

impl Level {
    async fn start(name: &'static str, fsync: Fsync) -> Self {
        let redis = parts::redis_with(fsync).await;
        let (queue, proxy) = (Queue::of(&redis).await, parts::proxy(&redis).await);
        wrk(&proxy.url, MANY, WARM_UP).await;
        queue.clear().await;
        Self { name, redis, queue, proxy, measured: [const { Series::new() }; WHAT.len()] }
    }

    /// The values in the order of [`WHAT`].
    async fn measure(&self, scale: Scale) -> [f64; WHAT.len()] {
        let many = wrk(&self.proxy.url, MANY, scale.length).await.per_second;
        self.queue.clear().await;
        let alone = wrk(&self.proxy.url, 1, scale.length).await.p50_ms * 1_000.0;
        self.queue.clear().await;
        let submitted = self.queue.submit_for(scale.length, MANY).await;
        self.queue.clear().await;
        self.queue.fill(scale.jobs / 4, MANY).await;
        let _worker = parts::worker(&self.redis, &[]).await;
        let drained = self.queue.drained().await.per_second();
        let via = Via::Http(Arc::new(Client::new(&self.proxy.url)));
        let latencies = open_loop(&self.redis, &via, PER_SECOND, scale.length * 2).await;
        self.queue.clear().await;
        [many, alone, submitted, drained, latencies.percentile(0.5), latencies.percentile(0.99)]
    }
}
