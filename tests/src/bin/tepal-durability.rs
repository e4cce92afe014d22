//! Cost and benefit of each level of persistence. Cost: submits a second and their latency through a real proxy. The levels
//! take turns within each round, so a slow minute affects all of them. Benefit: Redis is killed during submits again and
//! again, and lost acknowledged jobs are counted.
//!
//! `cargo run --release -p tepal-tests --bin tepal-durability -- --rounds 3 --seconds 4 --kills 40`
#![allow(clippy::expect_used, reason = "a measurement that cannot be made has no result")]

use std::io::{Write, stdout};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use serde_json::{Value, json};
use tepal_tests::http::Client;
use tepal_tests::process::Proxy;
use tepal_tests::redis::{Fsync, RedisOptions, RedisServer};
use tepal_tests::wait::eventually;
use tokio::task::JoinSet;

/// Cost and benefit of each level of persistence.
#[derive(Parser, Clone, Debug)]
#[command(name = "tepal-durability")]
struct Args {
    /// How often each level is measured
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How long each measurement takes, s
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Clients at a time when throughput is measured
    #[arg(long, default_value_t = 32)]
    clients: usize,
    /// How often Redis is killed at each level
    #[arg(long, default_value_t = 40)]
    kills: u32,
}

/// How durable a submission is when it is acknowledged.
#[derive(Clone, Copy, Debug)]
struct Level {
    name: &'static str,
    aof: Option<Fsync>,
    replicas: usize,
}

const LEVELS: [Level; 6] = [
    Level { name: "no append-only file", aof: None, replicas: 0 },
    Level { name: "appendfsync no", aof: Some(Fsync::No), replicas: 0 },
    Level { name: "appendfsync everysec", aof: Some(Fsync::EverySec), replicas: 0 },
    Level { name: "appendfsync always (shipped)", aof: Some(Fsync::Always), replicas: 0 },
    Level { name: "everysec, REPLICAS_REQUIRED=1", aof: Some(Fsync::EverySec), replicas: 1 },
    Level { name: "always, REPLICAS_REQUIRED=1", aof: Some(Fsync::Always), replicas: 1 },
];

impl Level {
    fn server(self) -> RedisOptions {
        let shipped = RedisServer::shipped().config("maxmemory 0");
        match self.aof {
            Some(fsync) => shipped.aof(fsync),
            None => shipped.config("appendonly no"),
        }
    }
}

/// Everything that one level needs, kept over all rounds.
struct Bench {
    level: Level,
    proxy: Proxy,
    _redis: Vec<RedisServer>,
    results: Vec<Measured>,
}

#[derive(Clone, Copy, Debug)]
struct Measured {
    alone_p50: Duration,
    alone_p99: Duration,
    per_second: f64,
}

#[tokio::main]
async fn main() {
    let args = Args::parse();
    let mut benches = Vec::new();
    for level in LEVELS {
        benches.push(Bench::start(level).await);
    }
    for _ in 0..args.rounds {
        for bench in &mut benches {
            let measured = bench.measure(&args).await;
            bench.results.push(measured);
        }
    }
    let _ = print(&args, &benches);
    drop(benches);
    let _ = writeln!(
        stdout(),
        "\n| level | kill -9 of Redis | that lost acknowledged jobs | jobs lost, of |\n|---|---|---|---|"
    );
    for level in LEVELS.iter().filter(|level| level.replicas == 0) {
        let Lost { kills, jobs, of } = kill_again_and_again(*level, &args).await;
        let _ = writeln!(stdout(), "| {} | {} | {kills} | {jobs} of {of} |", level.name, args.kills);
    }
}

/// Kills that lost acknowledged jobs, and how many jobs, of all that were acknowledged.
#[derive(Clone, Copy, Debug, Default)]
struct Lost {
    kills: u32,
    jobs: usize,
    of: usize,
}

async fn kill_again_and_again(level: Level, args: &Args) -> Lost {
    let redis = level.server().start().await;
    let proxy = Proxy::start(&redis.proxy_url(), &[("LOG_LEVEL", "error")]).await;
    let mut lost = Lost::default();
    for number in 0..args.kills {
        // An append-only file is synced about once a second: kill at all parts of that second.
        let part = Duration::from_millis(u64::from(number * 370 % 1_000));
        let (jobs, of) = kill_once(&redis, &proxy, Duration::from_secs(1) + part, args.clients).await;
        lost.kills += u32::from(jobs > 0);
        lost.jobs += jobs;
        lost.of += of;
    }
    lost
}

/// Submits until `after`, kills Redis and starts it again. Returns how many acknowledged jobs are lost, and of how many.
async fn kill_once(redis: &RedisServer, proxy: &Proxy, after: Duration, clients: usize) -> (usize, usize) {
    redis.cli(&["FLUSHALL"]);
    let client = proxy.client().with_timeout(Duration::from_secs(2));
    let accepts = async || client.try_predict(&sample(), &[]).await.is_ok_and(|answer| answer.status == 202);
    eventually(Duration::from_secs(30), "the proxy to accept jobs again", accepts).await;
    let is_killed = Arc::new(AtomicBool::new(false));
    let mut submitting = JoinSet::new();
    for _ in 0..clients {
        let (client, is_killed) = (client.clone(), Arc::clone(&is_killed));
        submitting.spawn(async move {
            let mut acknowledged = Vec::new();
            while !is_killed.load(Ordering::Relaxed) {
                if let Ok(answer) = client.try_predict(&sample(), &[]).await
                    && answer.status == 202
                {
                    acknowledged.push(answer.json()["job_id"].as_str().expect("a job_id").to_owned());
                }
            }
            acknowledged
        });
    }
    tokio::time::sleep(after).await;
    redis.kill9();
    // Only what was acknowledged before the kill may be counted: nothing else can be, Redis is gone.
    is_killed.store(true, Ordering::Relaxed);
    let acknowledged: Vec<String> = submitting.join_all().await.into_iter().flatten().collect();
    redis.restart().await;
    let mut connection = redis.connection().await;
    let mut gone = 0;
    for some in acknowledged.chunks(500) {
        let keys: Vec<String> = some.iter().map(|id| format!("{{predict_queue:0}}:job:{id}")).collect();
        let there: usize =
            redis::cmd("EXISTS").arg(keys).query_async(&mut connection).await.expect("Redis answers");
        gone += some.len() - there;
    }
    (gone, acknowledged.len())
}

impl Bench {
    async fn start(level: Level) -> Self {
        let primary = level.server().start().await;
        let mut redis = Vec::new();
        for _ in 0..level.replicas {
            let replica = level.server().replica_of(&primary).start().await;
            let in_step = async || {
                let info = replica.cli(&["INFO", "replication"]);
                info.contains("master_link_status:up").then_some(()).ok_or(info)
            };
            eventually(Duration::from_secs(30), "the replica to be in step", in_step).await;
            redis.push(replica);
        }
        let replicas = level.replicas.to_string();
        let env = [("REPLICAS_REQUIRED", replicas.as_str()), ("LOG_LEVEL", "warn")];
        let proxy = Proxy::start(&primary.proxy_url(), &env).await;
        redis.push(primary);
        Self { level, proxy, _redis: redis, results: Vec::new() }
    }

    /// First one client after the other, then many at a time.
    async fn measure(&self, args: &Args) -> Measured {
        let client = self.proxy.client();
        let time = Duration::from_secs(args.seconds);
        let mut alone = Vec::new();
        let until = Instant::now() + time / 2;
        while Instant::now() < until {
            let began = Instant::now();
            submit(&client).await;
            alone.push(began.elapsed());
        }
        alone.sort_unstable();
        let count = Arc::new(AtomicU64::new(0));
        let began = Instant::now();
        let mut clients = JoinSet::new();
        for _ in 0..args.clients {
            let (client, count) = (client.clone(), Arc::clone(&count));
            clients.spawn(async move {
                while began.elapsed() < time {
                    submit(&client).await;
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        clients.join_all().await;
        Measured {
            alone_p50: alone[alone.len() / 2],
            alone_p99: alone[alone.len() * 99 / 100],
            per_second: count.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64(),
        }
    }

    /// The median over the rounds of one figure.
    fn median(&self, figure: impl Fn(&Measured) -> f64) -> f64 {
        let mut figures: Vec<f64> = self.results.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures.get(figures.len() / 2).copied().unwrap_or_default()
    }
}

fn sample() -> Value {
    json!([[5.1, 3.5, 1.4, 0.2]])
}

async fn submit(client: &Client) {
    let answer = client.try_predict(&sample(), &[]).await.expect("an answer");
    assert_eq!(answer.status, 202, "{}", answer.text());
}

fn print(args: &Args, benches: &[Bench]) -> std::io::Result<()> {
    let mut out = stdout();
    writeln!(
        out,
        "medians of {} rounds; {} clients at a time for the throughput\n",
        args.rounds, args.clients
    )?;
    writeln!(out, "| level | one client: p50 | p99 | submits/s | ratio |\n|---|---|---|---|---|")?;
    let first = benches.first().map_or(1.0, |bench| bench.median(|measured| measured.per_second));
    for bench in benches {
        let p50 = bench.median(|measured| measured.alone_p50.as_secs_f64() * 1e3);
        let p99 = bench.median(|measured| measured.alone_p99.as_secs_f64() * 1e3);
        let rate = bench.median(|measured| measured.per_second);
        let name = bench.level.name;
        writeln!(out, "| {name} | {p50:.2} ms | {p99:.2} ms | {rate:.0} | {:.2} |", rate / first)?;
    }
    Ok(())
}
