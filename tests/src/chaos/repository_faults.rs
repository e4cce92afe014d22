//! Models that are removed from a worker for a while, and a model that is replaced by a new version on all workers.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::models::ModelKind;
use super::rig::Rig;
use super::rng::Rng;
use super::stack::WorkerNode;
use crate::history::now_us;

/// A worker looks at its models every two seconds, needs two looks, and may be frozen or killed meanwhile.
const NOTICED_WITHIN: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(100);

/// Removes a model, or replaces one. Other faults go on meanwhile: this takes seconds, and no job needs the worker concerned.
pub(super) async fn inject(rig: &Rig, rng: &mut Rng) {
    if rng.chance(0.5) {
        remove(rig, rng).await;
    } else {
        replace(rig, rng).await;
    }
}

async fn remove(rig: &Rig, rng: &mut Rng) {
    let node = rng.pick(&rig.stack.workers);
    // A worker does not start without its default model.
    let model = *rng.pick(&[ModelKind::Series, ModelKind::Wide]);
    let (began_us, kind) = (now_us(), format!("{} removed from a worker", model.name()));
    rig.tally.note(&format!("begins: {kind}"));
    let before = node.process.logs().len();
    node.repository.remove(model);
    let stopped = until(|| node.has_logged(before, "model_stopped", model)).await;
    sleep(rng.millis(0..3_000)).await;
    node.note_change(model);
    node.repository.put_back(model);
    let is_back = until(|| node.has_loaded(model)).await;
    rig.tally.add(&kind, began_us, u64::from(stopped && is_back));
}

/// Workers get the new version one after the other.
async fn replace(rig: &Rig, rng: &mut Rng) {
    let (began_us, kind) = (now_us(), "series replaced by a new version");
    let (version, workers) = (rig.versions.next(), &rig.stack.workers);
    rig.tally.note(&format!("begins: {kind}, version {version}"));
    let first = rng.index(workers.len());
    let mut given = Vec::new();
    for node in workers[first..].iter().chain(&workers[..first]) {
        sleep(rng.millis(0..1_000)).await;
        if give(node, version).await {
            given.push(node);
        }
    }
    let mut loaded = 0;
    for node in given {
        loaded += usize::from(until(|| node.has_loaded(ModelKind::Series)).await);
    }
    if loaded == workers.len() {
        rig.versions.is_everywhere(version);
    }
    rig.tally.add(kind, began_us, loaded as u64);
}

/// Gives a worker a new version, unless it has not loaded the one before. Otherwise the log does not say which one it loads next. With
/// the lock, no process is starting, and the next one finds the new version.
async fn give(node: &WorkerNode, version: i64) -> bool {
    let _guard = node.lock.lock().await;
    let is_idle = until(|| node.process_has_loaded(ModelKind::Series)).await;
    if is_idle {
        node.note_change(ModelKind::Series);
        node.repository.replace_series(version);
    }
    is_idle
}

async fn until(mut is_so: impl FnMut() -> bool) -> bool {
    let give_up = Instant::now() + NOTICED_WITHIN;
    while Instant::now() < give_up {
        if is_so() {
            return true;
        }
        sleep(LOOK).await;
    }
    false
}
