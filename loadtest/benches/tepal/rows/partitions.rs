//! What partitions cost: the commands of an idle worker, the time of a lone job, and of one beside a primary that is frozen.

use std::time::{Duration, Instant};

use tepal_shared::{
    job::{JobId, NewJob},
    queue::{
        Policy,
        intake::{Intake, Submitted},
        keys::Keys,
        link::{ConnectionSettings, Redis},
        views::{Notifier, Views},
    },
};
use tepal_tests::http::{Client, Method};
use tepal_tests::redis::{RedisCluster, RedisServer};
use tokio::time::sleep;

use super::{Detail, Measured, Row, Target, say};
use crate::series::Series;
use crate::tools::{BODY, STORED};
use crate::{Scale, parts};

/// Time for a worker to start.
const SETTLED: Duration = Duration::from_secs(3);
/// Jobs before a measurement.
const WARM_UP: usize = 100;
/// Partitions of the cluster: four for each primary.
const IN_CLUSTER: u8 = 12;
const QUEUE: &str = "predict_queue";

pub(super) async fn measure(measured: &mut Measured, scale: Scale) {
    idle(measured, scale).await;
    alone(measured, scale).await;
    beside_a_frozen_primary(measured, scale).await;
}

/// Commands that a worker sends while it has nothing to do, and those of its scripts.
async fn idle(measured: &mut Measured, scale: Scale) {
    let mut lines = Vec::new();
    for (partitions, most) in [("1", 150.0), ("16", 150.0), ("256", 1_500.0)] {
        let redis = parts::redis().await;
        let _worker = parts::worker(&redis, &[("PARTITIONS", partitions), ("NUM_WORKERS", "2")]).await;
        sleep(SETTLED).await;
        let [mut sent, mut in_scripts] = [const { Series::new() }; 2];
        for round in 0..scale.rounds {
            let monitor = redis.monitor();
            sleep(scale.length * 2).await;
            let executed = monitor.executed();
            let calls = executed.iter().filter(|command| command.is_in_script).count();
            let per_second = |count: usize| count as f64 / (scale.length * 2).as_secs_f64();
            sent.push(per_second(executed.len() - calls));
            in_scripts.push(per_second(calls));
            say(round, &format!("idle, PARTITIONS={partitions}"), per_second(executed.len() - calls), "/s");
        }
        lines.push(vec![partitions.to_owned(), sent.to_string(), in_scripts.to_string()]);
        let what = format!("commands of an idle worker with PARTITIONS={partitions}");
        measured.rows.push(Row::value(&what, sent, "/s", Target::AtMost(most)));
    }
    measured.details.push(Detail {
        title: "Partitions",
        text: "Commands a second of one idle worker process, by MONITOR.".to_owned(),
        head: vec!["`PARTITIONS`", "sent", "called by scripts"],
        lines,
    });
}

/// The time of jobs that a client submits one after the other, and waits for.
async fn alone(measured: &mut Measured, scale: Scale) {
    let [mut one, mut many] = [const { Series::new() }; 2];
    for round in 0..scale.rounds {
        for (partitions, medians) in [("1", &mut one), ("16", &mut many)] {
            let redis = parts::redis().await;
            let proxy = parts::proxy_with(&redis, &[("PARTITIONS", partitions)]).await;
            let _worker = parts::worker(&redis, &[("PARTITIONS", partitions)]).await;
            let client = Client::new(&proxy.url);
            for _ in 0..WARM_UP {
                waited_for(&client).await;
            }
            let (began, mut times) = (Instant::now(), Vec::new());
            while began.elapsed() < scale.length {
                times.push(waited_for(&client).await.as_secs_f64() * 1_000.0);
            }
            times.sort_by(f64::total_cmp);
            let median = times[times.len() / 2];
            say(round, &format!("lone job, PARTITIONS={partitions}, p50"), median, "ms");
            medians.push(median);
        }
    }
    let what = "lone job with `Prefer: wait` and PARTITIONS=16, over PARTITIONS=1, p50";
    measured.rows.push(Row::ratio(what, one, many, "ms", Target::AtMost(1.2)));
}

async fn waited_for(client: &Client) -> Duration {
    let began = Instant::now();
    let headers = [("content-type", "application/json"), ("prefer", "wait=10")];
    let answer = client.request(Method::POST, "/predict", &headers, BODY).await;
    assert_eq!(answer.json()["status"], "completed", "{}", answer.text());
    began.elapsed()
}

/// A queue in a cluster, used as a proxy uses it.
struct Clustered {
    cluster: RedisCluster,
    keys: Keys,
    intake: Intake,
    views: Views,
    notifier: Notifier,
}

impl Clustered {
    async fn start() -> Self {
        let cluster = RedisCluster::start(&RedisServer::shipped(), 3, 0).await;
        let (keys, partitions) = (Keys::in_cluster(QUEUE), u16::from(IN_CLUSTER));
        let settings = ConnectionSettings::new(&cluster.url()).expect("a valid address");
        let redis = Redis::open(settings.for_queue(&keys, partitions)).expect("a valid address");
        redis.up().await;
        let policy = Policy { partitions, ..Policy::default() };
        let queue = tepal_shared::queue::Queue::new(redis.clone(), keys.clone(), policy);
        let (intake, views) = (Intake::new(queue.clone()), Views::new(queue));
        let notifier = Notifier::new(redis, keys.clone());
        Self { cluster, keys, intake, views, notifier }
    }

    /// The partitions that other primaries have.
    fn beside(&self, primary: &RedisServer) -> Vec<u8> {
        let is_elsewhere = |of: &u8| self.cluster.owner(&self.keys.log(*of)).port() != primary.port();
        (0..IN_CLUSTER).filter(is_elsewhere).collect()
    }

    /// Submits a job and waits for its end.
    async fn waited_for(&self, partition: u8) -> Duration {
        let (id, began) = (JobId::new(partition), Instant::now());
        let job = NewJob::new("iris".parse().expect("a name"), STORED.to_vec());
        let submitted = self.intake.submit(id, job).await.expect("the primary answers");
        assert_eq!(submitted, Submitted::Accepted);
        let mut watch = self.notifier.watch(id);
        loop {
            watch.changed().await;
            let job = self.views.job(id).await.expect("the primary answers");
            if job.is_some_and(|job| job.status.is_terminal()) {
                return began.elapsed();
            }
        }
    }
}

async fn beside_a_frozen_primary(measured: &mut Measured, scale: Scale) {
    let queue = Clustered::start().await;
    let url = queue.cluster.url_with(RedisServer::worker_url_at);
    let partitions = IN_CLUSTER.to_string();
    let env = [("REDIS_URL", url.as_str()), ("PARTITIONS", partitions.as_str())];
    let _worker = parts::worker(&queue.cluster.primaries[0], &env).await;
    let mut longest = Series::new();
    for round in 0..scale.rounds {
        let primary = &queue.cluster.primaries[round % queue.cluster.primaries.len()];
        let beside = queue.beside(primary);
        for partition in (0..IN_CLUSTER).cycle().take(WARM_UP) {
            queue.waited_for(partition).await;
        }
        primary.sigstop();
        let (began, mut worst) = (Instant::now(), Duration::ZERO);
        for partition in beside.into_iter().cycle().take_while(|_| began.elapsed() < scale.length) {
            worst = worst.max(queue.waited_for(partition).await);
        }
        primary.sigcont();
        queue.cluster.ready(queue.cluster.primaries.len(), 0).await;
        let worst_ms = worst.as_secs_f64() * 1_000.0;
        say(round, "longest beside a frozen primary", worst_ms, "ms");
        longest.push(worst_ms);
    }
    let what = "longest lone job at two primaries while the third is frozen";
    measured.rows.push(Row::value(what, longest, "ms", Target::AtMost(100.0)));
}
