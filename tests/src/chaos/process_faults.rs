//! Processes that are killed, stopped in order, or frozen and thawed.

use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};
use tokio::time::sleep;

use super::holdings::{self, Held};
use super::recovery::Kill;
use super::rig::Rig;
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
pub(super) async fn inject(rig: &Rig, rng: &mut Rng, lease: Duration) -> Option<Kill> {
    let kind = rng.weighted(&KINDS);
    rig.tally.note(&format!("begins: {kind:?}"));
    if matches!(kind, Kind::KillWorkerAlone) {
        let _alone = rig.stack.quiet.write().await;
        return kill_worker(rig, rng, Some(lease)).await;
    }
    let _calm = rig.stack.quiet.read().await;
    match kind {
        Kind::KillWorker | Kind::KillWorkerAlone => return kill_worker(rig, rng, None).await,
        Kind::FreezeWorker => freeze_worker(rig, rng, lease).await,
        Kind::StopWorker => stop_worker(rig, rng).await,
        Kind::KillProxy => kill_proxy(rig, rng).await,
        Kind::FreezeProxy => freeze_proxy(rig, rng).await,
        Kind::KillRedis => kill_redis(rig, rng).await,
        Kind::FreezeRedis => freeze_redis(rig, rng).await,
    }
    None
}

/// A worker that no other fault uses.
async fn worker<'a>(rig: &'a Rig, rng: &mut Rng) -> (&'a WorkerNode, MutexGuard<'a, ()>) {
    loop {
        let node = rng.pick(&rig.stack.workers);
        if let Ok(guard) = node.lock.try_lock() {
            assert!(node.process.is_running(), "{} ended by itself", node.process.process());
            return (node, guard);
        }
        sleep(Duration::from_millis(10)).await;
    }
}

async fn proxy<'a>(rig: &'a Rig, rng: &mut Rng) -> (&'a ProxyNode, MutexGuard<'a, ()>) {
    let node = rng.pick(&rig.stack.proxies);
    let guard = node.lock.lock().await;
    assert!(node.process.is_running(), "{} ended by itself", node.process.process());
    (node, guard)
}

/// The jobs that the worker holds; none when Redis does not answer.
async fn held(rig: &Rig, pid: u32) -> Vec<Held> {
    let read = async {
        let mut connection = rig.stack.redis_connection().await?;
        holdings::of_worker(&mut connection, pid).await
    };
    read.await.unwrap_or_default()
}

/// Waits for a moment in which the worker holds jobs.
async fn until_it_holds_jobs(rig: &Rig, node: &WorkerNode) {
    let pid = node.process.pid();
    let _ = poll(WAITS, || async { !held(rig, pid).await.is_empty() }).await;
}

async fn kill_worker(rig: &Rig, rng: &mut Rng, alone: Option<Duration>) -> Option<Kill> {
    let began_us = now_us();
    let (node, _guard) = worker(rig, rng).await;
    rig.stack.save_repairs(node).await;
    until_it_holds_jobs(rig, node).await;
    let pid = node.process.pid();
    node.process.kill9();
    let at_us = now_us();
    let held = held(rig, pid).await;
    if let Some(lease) = alone {
        until_given_away(rig, &held, lease * 5).await;
    } else {
        sleep(rng.millis(0..1_000)).await;
    }
    node.process.restart().await;
    rig.tally.add("kill -9 worker", began_us, held.len() as u64);
    let jobs = held.into_iter().map(|held| (held.job, held.attempt)).collect();
    Some(Kill { at_us, alone: alone.is_some(), jobs })
}

/// Waits until others have reclaimed the entries; returns how many.
async fn until_given_away(rig: &Rig, held: &[Held], within: Duration) -> u64 {
    let gone = Mutex::new(0);
    let _ = poll(within, || async {
        let mut connection = rig.stack.redis_connection().await.ok()?;
        let count = holdings::given_away(&mut connection, held).await.ok()?;
        *gone.lock().await = count;
        (count == held.len() as u64).then_some(())
    })
    .await;
    gone.into_inner()
}

/// A zombie: frozen until its leases have lapsed and others run its jobs. Then it continues and tries to store its results.
async fn freeze_worker(rig: &Rig, rng: &mut Rng, lease: Duration) {
    let began_us = now_us();
    let (node, _guard) = worker(rig, rng).await;
    until_it_holds_jobs(rig, node).await;
    node.process.sigstop();
    let held = held(rig, node.process.pid()).await;
    let gone = until_given_away(rig, &held, lease * 2).await;
    sleep(rng.millis(0..500)).await;
    node.process.sigcont();
    node.process.ready().await;
    rig.tally.add("freeze worker past its lease", began_us, gone);
}

async fn stop_worker(rig: &Rig, rng: &mut Rng) {
    let (node, _guard) = worker(rig, rng).await;
    stop_and_start(rig, node).await;
}

/// SIGTERM while it holds jobs, and a new start when it has ended.
pub(super) async fn stop_and_start(rig: &Rig, node: &WorkerNode) {
    let began_us = now_us();
    rig.stack.save_repairs(node).await;
    until_it_holds_jobs(rig, node).await;
    let count = held(rig, node.process.pid()).await.len() as u64;
    node.process.sigterm();
    let status = node.process.wait_exit(STOPS_WITHIN).await;
    assert!(status.success(), "a worker ended after SIGTERM with {status}");
    node.process.restart().await;
    rig.tally.add("SIGTERM worker", began_us, count);
}

async fn until_it_is_asked(node: &ProxyNode) {
    let is_asked = || async { node.in_flight.load(std::sync::atomic::Ordering::Relaxed) > 0 };
    let _ = poll(WAITS, is_asked).await;
}

async fn kill_proxy(rig: &Rig, rng: &mut Rng) {
    let began_us = now_us();
    let (node, _guard) = proxy(rig, rng).await;
    until_it_is_asked(node).await;
    let in_flight = node.in_flight.load(std::sync::atomic::Ordering::Relaxed);
    node.process.kill9();
    sleep(rng.millis(0..500)).await;
    node.process.restart().await;
    rig.tally.add("kill -9 proxy", began_us, in_flight);
}

async fn freeze_proxy(rig: &Rig, rng: &mut Rng) {
    let began_us = now_us();
    let (node, _guard) = proxy(rig, rng).await;
    until_it_is_asked(node).await;
    node.process.sigstop();
    sleep(rng.millis(500..6_000)).await;
    let in_flight = node.in_flight.load(std::sync::atomic::Ordering::Relaxed);
    node.process.sigcont();
    node.process.ready().await;
    rig.tally.add("freeze proxy", began_us, in_flight);
}

async fn kill_redis(rig: &Rig, rng: &mut Rng) {
    let began_us = now_us();
    let _guard = rig.stack.redis_lock.lock().await;
    let clients = clients(rig).await;
    rig.stack.redis.kill9();
    sleep(rng.millis(0..1_500)).await;
    rig.stack.redis.restart().await;
    rig.tally.add("kill -9 Redis", began_us, clients);
}

async fn freeze_redis(rig: &Rig, rng: &mut Rng) {
    let began_us = now_us();
    let _guard = rig.stack.redis_lock.lock().await;
    let clients = clients(rig).await;
    rig.stack.redis.sigstop();
    sleep(rng.millis(300..4_500)).await;
    rig.stack.redis.sigcont();
    rig.stack.redis.wait_ready().await;
    rig.tally.add("freeze Redis", began_us, clients);
}

/// Connections of the services to Redis; 0 when it does not answer.
async fn clients(rig: &Rig) -> u64 {
    let read = async {
        let mut connection = rig.stack.redis_connection().await?;
        redis::cmd("CLIENT").arg("LIST").query_async::<String>(&mut connection).await
    };
    read.await.map_or(0, |list: String| list.lines().count().saturating_sub(1) as u64)
}
