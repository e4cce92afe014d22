//! Model servers that fail single calls.

use std::time::Duration;

use tonic::Code;

use super::lanes::Lanes;
use super::rng::Rng;
use crate::model_server::Behaviour;
use crate::wait::poll;

/// How long a fault waits for calls that it can hit.
const WAITS: Duration = Duration::from_secs(2);

/// Spoils the next calls of one server.
pub(super) async fn inject(lanes: &Lanes, rng: &mut Rng) {
    let _calm = lanes.stack.quiet.read().await;
    let models: Vec<_> = lanes.stack.workers.iter().filter_map(|worker| worker.model.as_ref()).collect();
    let model = *rng.pick(&models);
    let (kind, behaviour) = draw(rng);
    let calls = rng.within(1..6);
    let before = model.server.call_count();
    model.server.script_next(calls as usize, behaviour);
    let since = || model.server.call_count() - before;
    let _ = poll(WAITS, || async { since() >= calls as usize }).await;
    model.server.script_nothing();
    lanes.tally.add(kind, (since() as u64).min(calls));
}

fn draw(rng: &mut Rng) -> (&'static str, Behaviour) {
    let status = |code, text: &str| Behaviour::Status(code, text.to_owned());
    let slow = rng.millis(300..3_500);
    let all = [
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
    ];
    rng.pick(&all).clone()
}
