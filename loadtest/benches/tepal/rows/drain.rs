//! The store's submit and one worker's drain against the limit of Redis, and Redis's processor time for a job's whole life.

use super::{Detail, Measured, Row, Target, say};
use crate::series::Series;
use crate::tools::redis_limit;
use crate::{Scale, parts, queue::Queue};

/// Tasks that submit at once, as in the row's name.
const TASKS: usize = 64;

pub(super) async fn measure(measured: &mut Measured, scale: Scale) {
    let redis = parts::redis().await;
    let queue = Queue::of(&redis).await;
    let [mut limits, mut submits, mut limits_again, mut drains] = [const { Series::new() }; 4];
    let [mut cpu, mut commands] = [const { Series::new() }; 2];
    for round in 0..scale.rounds {
        let limit = limit(&queue, &redis.url(), scale.jobs).await;
        let submitted = queue.submit_for(scale.length, TASKS).await;
        queue.clear().await;
        say(round, "redis-benchmark", limit, "/s");
        say(round, "submit without HTTP, 64 tasks", submitted, "/s");
        limits.push(limit);
        submits.push(submitted);

        let limit = self::limit(&queue, &redis.url(), scale.jobs).await;
        let (cpu_before, commands_before) = (queue.cpu_seconds().await, queue.commands().await);
        queue.fill(scale.jobs, TASKS).await;
        let worker = parts::worker(&redis, &[]).await;
        let drained = queue.drained().await;
        let jobs = scale.jobs as f64;
        let cpu_us = (queue.cpu_seconds().await - cpu_before) / jobs * 1e6;
        let calls = (queue.commands().await - commands_before) / jobs;
        drop(worker);
        queue.clear().await;
        say(round, "redis-benchmark", limit, "/s");
        say(round, "one worker draining", drained.per_second(), "/s");
        say(round, "Redis time of a whole job", cpu_us, "us");
        limits_again.push(limit);
        drains.push(drained.per_second());
        cpu.push(cpu_us);
        commands.push(calls);
    }
    let what = "the store's submit without HTTP, 64 tasks, over `redis-benchmark`";
    measured.rows.push(Row::ratio(what, limits, submits, "/s", Target::AtLeast(0.6)));
    let what = "one worker draining a backlog, ONNX Iris, over `redis-benchmark`";
    measured.rows.push(Row::ratio(what, limits_again, drains, "/s", Target::AtLeast(0.3)));
    let what = "Redis processor time of a job's whole life";
    measured.rows.push(Row::value(what, cpu, "us", Target::AtMost(30.0)));
    measured.details.push(Detail {
        title: "Redis",
        text: "The commands of a job are counted inside its scripts, too, so that one script call counts as several."
            .to_owned(),
        head: vec!["what", "measured"],
        lines: vec![
            vec!["Redis commands of a job's whole life".to_owned(), commands.to_string()],
        ],
    });
}

/// The limit leaves as many keys as a round of Tepal. Both are removed.
async fn limit(queue: &Queue, url: &str, requests: usize) -> f64 {
    let script = queue.load_limit_script().await;
    let limit = redis_limit(url, &script, requests).await;
    queue.clear().await;
    limit
}
