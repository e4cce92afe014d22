//! Processes that are killed, stopped in order, or frozen and thawed.

use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};
use tokio::time::sleep;

use super::holdings::{self, Held};
use super::lanes::Lanes;
use super::recovery::Kill;
use super::rng::Rng;
use super::stack::{ProxyNode, WorkerNode};
use crate::history::now_us;
use crate::wait::poll;

/// How long a fault waits for a moment in which it can hit.
const WAITS: Duration = Duration::from_secs(2);
/// After SIGTERM a worker must have ended within this time: its drain timeout, the time to release the other jobs and to
/// remove its heartbeat, and some time for a loaded machine.
const STOPS_WITHIN: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug)]
enum Kind {
    KillWorker,
    /// With no other fault until its jobs run again, to measure how long that takes.
    KillWorkerAlone,
    FreezeWorker,
    StopWorker,
    KillProxy,
    FreezeProxy,
    KillRedis,
    FreezeRedis,
}

const KINDS: [(u64, Kind); 8] = [
    (4, Kind::KillWorker),
    (2, Kind::KillWorkerAlone),
    (4, Kind::FreezeWorker),
    (3, Kind::StopWorker),
    (3, Kind::KillProxy),
    (2, Kind::FreezeProxy),
    (2, Kind::KillRedis),
    (2, Kind::FreezeRedis),
];

/// Injects one fault; returns the kill, if it killed a worker that held jobs.
pub(super) async fn inject(lanes: &Lanes, rng: &mut Rng, lease: Duration) -> Option<Kill> {
    let kind = rng.weighted(&KINDS);
    lanes.tally.note(&format!("begins: {kind:?}"));
    if matches!(kind, Kind::KillWorkerAlone) {
        let _alone = lanes.stack.quiet.write().await;
        return kill_worker(lanes, rng, Some(lease)).await;
    }
    let _calm = lanes.stack.quiet.read().await;
    match kind {
        Kind::KillWorker | Kind::KillWorkerAlone => return kill_worker(lanes, rng, None).await,
        Kind::FreezeWorker => freeze_worker(lanes, rng, lease).await,
        Kind::StopWorker => stop_worker(lanes, rng).await,
        Kind::KillProxy => kill_proxy(lanes, rng).await,
        Kind::FreezeProxy => freeze_proxy(lanes, rng).await,
        Kind::KillRedis => kill_redis(lanes, rng).await,
        Kind::FreezeRedis => freeze_redis(lanes, rng).await,
    }
    None
}

/// A worker that no other fault uses.
async fn worker<'a>(lanes: &'a Lanes, rng: &mut Rng) -> (&'a WorkerNode, MutexGuard<'a, ()>) {
    loop {
        let node = rng.pick(&lanes.stack.workers);
        if let Ok(guard) = node.lock.try_lock() {
            assert!(node.process.is_running(), "{} ended by itself", node.process.process());
            return (node, guard);
        }
        sleep(Duration::from_millis(10)).await;
    }
}

async fn proxy<'a>(lanes: &'a Lanes, rng: &mut Rng) -> (&'a ProxyNode, MutexGuard<'a, ()>) {
    let node = rng.pick(&lanes.stack.proxies);
    let guard = node.lock.lock().await;
    assert!(node.process.is_running(), "{} ended by itself", node.process.process());
    (node, guard)
}

/// The jobs that the worker holds; none when Redis does not answer.
async fn held(lanes: &Lanes, pid: u32) -> Vec<Held> {
    let read = async {
        let mut connection = lanes.stack.redis_connection().await?;
        holdings::of_worker(&mut connection, pid).await
    };
    read.await.unwrap_or_default()
}

/// Waits for a moment in which the worker holds jobs.
async fn until_it_holds_jobs(lanes: &Lanes, node: &WorkerNode) {
    let pid = node.process.pid();
    let _ = poll(WAITS, || async { !held(lanes, pid).await.is_empty() }).await;
}

async fn kill_worker(lanes: &Lanes, rng: &mut Rng, alone: Option<Duration>) -> Option<Kill> {
    let began_us = now_us();
    let (node, _guard) = worker(lanes, rng).await;
    lanes.stack.save_repairs(node).await;
    until_it_holds_jobs(lanes, node).await;
    let pid = node.process.pid();
    node.process.kill9();
    let at_us = now_us();
    let held = held(lanes, pid).await;
    if let Some(lease) = alone {
        until_given_away(lanes, &held, lease * 5).await;
    } else {
        sleep(rng.millis(0..1_000)).await;
    }
    node.process.restart().await;
    lanes.tally.add("kill -9 worker", began_us, held.len() as u64);
    let jobs = held.into_iter().map(|held| (held.job, held.attempt)).collect();
    Some(Kill { at_us, alone: alone.is_some(), jobs })
}

/// Waits until others have reclaimed the entries; returns how many.
async fn until_given_away(lanes: &Lanes, held: &[Held], within: Duration) -> u64 {
    let gone = Mutex::new(0);
    let _ = poll(within, || async {
        let mut connection = lanes.stack.redis_connection().await.ok()?;
        let count = holdings::given_away(&mut connection, held).await.ok()?;
        *gone.lock().await = count;
        (count == held.len() as u64).then_some(())
    })
    .await;
    gone.into_inner()
}

/// A zombie: frozen until its leases have lapsed and others run its jobs. Then it continues and tries to store its results.
async fn freeze_worker(lanes: &Lanes, rng: &mut Rng, lease: Duration) {
    let began_us = now_us();
    let (node, _guard) = worker(lanes, rng).await;
    until_it_holds_jobs(lanes, node).await;
    node.process.sigstop();
    let held = held(lanes, node.process.pid()).await;
    let gone = until_given_away(lanes, &held, lease * 2).await;
    sleep(rng.millis(0..500)).await;
    node.process.sigcont();
    node.process.ready().await;
    lanes.tally.add("freeze worker past its lease", began_us, gone);
}

async fn stop_worker(lanes: &Lanes, rng: &mut Rng) {
    let (node, _guard) = worker(lanes, rng).await;
    stop_and_start(lanes, node).await;
}

/// SIGTERM while it holds jobs, and a new start when it has ended.
pub(super) async fn stop_and_start(lanes: &Lanes, node: &WorkerNode) {
    let began_us = now_us();
    lanes.stack.save_repairs(node).await;
    until_it_holds_jobs(lanes, node).await;
    let count = held(lanes, node.process.pid()).await.len() as u64;
    node.process.sigterm();
    let status = node.process.wait_exit(STOPS_WITHIN).await;
    assert!(status.success(), "a worker that was told to stop ended with {status}");
    node.process.restart().await;
    lanes.tally.add("SIGTERM worker", began_us, count);
}

async fn until_it_is_asked(node: &ProxyNode) {
    let is_asked = || async { node.in_flight.load(std::sync::atomic::Ordering::Relaxed) > 0 };
    let _ = poll(WAITS, is_asked).await;
}

async fn kill_proxy(lanes: &Lanes, rng: &mut Rng) {
    let began_us = now_us();
    let (node, _guard) = proxy(lanes, rng).await;
    until_it_is_asked(node).await;
    let asked = node.in_flight.load(std::sync::atomic::Ordering::Relaxed);
    node.process.kill9();
    sleep(rng.millis(0..500)).await;
    node.process.restart().await;
    lanes.tally.add("kill -9 proxy", began_us, asked);
}

async fn freeze_proxy(lanes: &Lanes, rng: &mut Rng) {
    let began_us = now_us();
    let (node, _guard) = proxy(lanes, rng).await;
    until_it_is_asked(node).await;
    node.process.sigstop();
    sleep(rng.millis(500..6_000)).await;
    let asked = node.in_flight.load(std::sync::atomic::Ordering::Relaxed);
    node.process.sigcont();
    node.process.ready().await;
    lanes.tally.add("freeze proxy", began_us, asked);
}

async fn kill_redis(lanes: &Lanes, rng: &mut Rng) {
    let began_us = now_us();
    let _guard = lanes.stack.redis_lock.lock().await;
    let clients = clients(lanes).await;
    lanes.stack.redis.kill9();
    sleep(rng.millis(0..1_500)).await;
    lanes.stack.redis.restart().await;
    lanes.tally.add("kill -9 Redis", began_us, clients);
}

async fn freeze_redis(lanes: &Lanes, rng: &mut Rng) {
    let began_us = now_us();
    let _guard = lanes.stack.redis_lock.lock().await;
    let clients = clients(lanes).await;
    lanes.stack.redis.sigstop();
    sleep(rng.millis(300..4_500)).await;
    lanes.stack.redis.sigcont();
    lanes.stack.redis.wait_ready().await;
    lanes.tally.add("freeze Redis", began_us, clients);
}

/// Connections of the services to Redis; 0 when it does not answer.
async fn clients(lanes: &Lanes) -> u64 {
    let read = async {
        let mut connection = lanes.stack.redis_connection().await?;
        redis::cmd("CLIENT").arg("LIST").query_async::<String>(&mut connection).await
    };
    read.await.map_or(0, |list: String| list.lines().count().saturating_sub(1) as u64)
}
