//! The memory in Redis of a finished one-row Iris job: its hash, its expiry and its entries in all indexes.

use tepal_tests::redis::RedisServer;

use super::{Measured, Row, Target, say};
use crate::series::Series;
use crate::{Scale, parts, queue::Queue};

const TASKS: usize = 64;

pub(super) async fn measure(measured: &mut Measured, scale: Scale) {
    let [mut shipped, mut stock] = [const { Series::new() }; 2];
    for round in 0..scale.rounds {
        let bytes = finished_job(&parts::redis().await, scale.jobs / 2).await;
        say(round, "finished job, shipped redis.conf", bytes, "bytes");
        shipped.push(bytes);
        let bytes = finished_job(&parts::stock_redis().await, scale.jobs / 2).await;
        say(round, "finished job, stock settings", bytes, "bytes");
        stock.push(bytes);
    }
    let what = "Redis bytes of a finished Iris job, shipped `redis.conf`";
    measured.rows.push(Row::value(what, shipped, "bytes", Target::AtMost(400.0)));
    let what = "the same with stock settings of Redis";
    measured.rows.push(Row::value(what, stock, "bytes", Target::AtMost(900.0)));
}

async fn finished_job(redis: &RedisServer, jobs: usize) -> f64 {
    let queue = Queue::of(redis).await;
    let _worker = parts::worker(redis, &[]).await;
    queue.fill(100, TASKS).await;
    queue.drained().await;
    let before = queue.data_bytes().await;
    queue.fill(jobs, TASKS).await;
    queue.drained().await;
    (queue.data_bytes().await - before) / jobs as f64
}
