//! Model servers that fail single calls, or all calls of a kind for a while.

use std::time::Duration;

use tokio::time::sleep;
use tonic::Code;

use super::rig::Rig;
use super::rng::Rng;
use crate::history::now_us;
use crate::model_server::{Behaviour, CallOutcome, ModelServer};
use crate::wait::poll;

/// How long a fault waits for calls that it can hit.
const WAITS: Duration = Duration::from_secs(2);
/// The server fails calls of more rows than the largest job has.
pub const LARGE_BATCHES: &str = "model server: refuses large batches";
/// The server fails every call, as servers do while a version is swapped.
pub const NOT_READY: &str = "model server: FAILED_PRECONDITION";

/// Makes the next calls of one server fail, or all its calls of a kind for a while.
pub(super) async fn inject(rig: &Rig, rng: &mut Rng, only: &[String]) {
    let _calm = rig.stack.quiet.read().await;
    let models: Vec<_> = rig.stack.workers.iter().filter_map(|worker| worker.model.as_ref()).collect();
    let node = *rng.pick(&models);
    let server = &node.server;
    let mut all = kinds(rng);
    all.retain(|(kind, _)| only.is_empty() || only.iter().any(|name| name == kind));
    let (kind, behaviour) = rng.pick(&all).clone();
    rig.tally.note(&format!("begins: {kind}"));
    let began_us = now_us();
    let touched = match kind {
        LARGE_BATCHES | NOT_READY => for_a_while(server, behaviour, rng.millis(2_000..5_000)).await,
        _ => next_calls(server, behaviour, rng.within(1..6)).await,
    };
    rig.tally.add_of(Some(node.kind.name()), kind, began_us, touched);
}

async fn next_calls(server: &ModelServer, behaviour: Behaviour, calls: u64) -> u64 {
    let before = server.call_count();
    server.script_next(calls as usize, behaviour);
    let since = || (server.call_count() - before) as u64;
    let _ = poll(WAITS, || async { since() >= calls }).await;
    server.script_nothing();
    since().min(calls)
}

async fn for_a_while(server: &ModelServer, behaviour: Behaviour, time: Duration) -> u64 {
    let before = server.call_count();
    server.set_behaviour(behaviour);
    sleep(time).await;
    server.set_behaviour(Behaviour::Normal);
    let calls = server.calls().split_off(before);
    calls.iter().filter(|call| matches!(call.outcome, CallOutcome::Failed(_))).count() as u64
}

/// The names of all kinds.
#[must_use]
pub fn names() -> Vec<&'static str> {
    kinds(&mut Rng::new(0, 0)).into_iter().map(|(kind, _)| kind).collect()
}

fn kinds(rng: &mut Rng) -> Vec<(&'static str, Behaviour)> {
    let status = |code, text: &str| Behaviour::Status(code, text.to_owned());
    let slow = rng.millis(300..3_500);
    let largest = super::models::MOST_ROWS as usize;
    let oom = "OOM when allocating tensor".to_owned();
    vec![
        ("model call: UNAVAILABLE", status(Code::Unavailable, "going away")),
        ("model call: INTERNAL", status(Code::Internal, "broken")),
        ("model call: DEADLINE_EXCEEDED", status(Code::DeadlineExceeded, "too late")),
        ("model call: RESOURCE_EXHAUSTED", status(Code::ResourceExhausted, "too much")),
        ("model call: INVALID_ARGUMENT", status(Code::InvalidArgument, "no")),
        ("model call: slow", Behaviour::Delay(slow)),
        ("model call: no answer", Behaviour::Hang),
        ("model call: NaN", Behaviour::Nan),
        ("model call: wrong shape", Behaviour::WrongShape),
        ("model call: missing row", Behaviour::MissingRow),
        ("model call: missing output", Behaviour::MissingOutput),
        ("model call: too few values", Behaviour::ShortValues),
        (LARGE_BATCHES, Behaviour::FailCallsOver(largest, Code::ResourceExhausted, oom)),
        (NOT_READY, status(Code::FailedPrecondition, "Serving signature key not found")),
    ]
}
