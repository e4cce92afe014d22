//! What each level of persistence costs: submits a second and their latency through a real proxy, on one machine, the
//! levels in turn within each round so that a slow minute hits all of them.
//!
//! `cargo run --release -p tepal-tests --bin tepal-durability-cost -- --rounds 3 --seconds 4`
#![allow(clippy::expect_used, reason = "a measurement that cannot be made has no result")]

use std::io::{Write, stdout};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use serde_json::json;
use tepal_tests::http::Client;
use tepal_tests::process::Proxy;
use tepal_tests::redis::{Fsync, RedisServer};
use tepal_tests::wait::eventually;
use tokio::task::JoinSet;

/// Cost of each level of persistence.
#[derive(Parser, Clone, Debug)]
#[command(name = "tepal-durability-cost")]
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
}

/// What a submit has been through when it is acknowledged.
#[derive(Clone, Copy, Debug)]
struct Level {
    name: &'static str,
    aof: Option<Fsync>,
    replicas: usize,
}

const LEVELS: [Level; 6] = [
    Level { name: "no append-only file", aof: None, replicas: 0 },
    Level { name: "appendfsync no", aof: Some(Fsync::No), replicas: 0 },
    Level { name: "appendfsync everysec (shipped)", aof: Some(Fsync::EverySec), replicas: 0 },
    Level { name: "appendfsync always", aof: Some(Fsync::Always), replicas: 0 },
    Level { name: "everysec, REPLICAS_REQUIRED=1", aof: Some(Fsync::EverySec), replicas: 1 },
    Level { name: "always, REPLICAS_REQUIRED=1", aof: Some(Fsync::Always), replicas: 1 },
];

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
}

impl Bench {
    async fn start(level: Level) -> Self {
        let server = || match level.aof {
            Some(fsync) => RedisServer::options().aof(fsync),
            None => RedisServer::options(),
        };
        let primary = server().start().await;
        let mut redis = Vec::new();
        for _ in 0..level.replicas {
            let replica = server().config(&format!("replicaof 127.0.0.1 {}", primary.port())).start().await;
            let in_step = async || {
                let info = replica.cli(&["INFO", "replication"]);
                info.contains("master_link_status:up").then_some(()).ok_or(info)
            };
            eventually(Duration::from_secs(30), "the replica to be in step", in_step).await;
            redis.push(replica);
        }
        let replicas = level.replicas.to_string();
        let env = [("REPLICAS_REQUIRED", replicas.as_str()), ("LOG_LEVEL", "warn")];
        let proxy = Proxy::start(&primary.url(), &env).await;
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

async fn submit(client: &Client) {
    let rows = json!([[5.1, 3.5, 1.4, 0.2]]);
    let answer = client.try_predict(&rows, &[]).await.expect("an answer");
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
