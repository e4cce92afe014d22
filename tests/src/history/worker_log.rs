//! Worker events from the workers' logs: one JSON object a line with `timestamp` (RFC 3339, UTC),
//! `component`, `job_id`, `attempt` and `action`.

use std::time::UNIX_EPOCH;

use serde_json::Value;

use super::{Event, Outcome, Record};

/// The meaning of an action in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// An attempt began.
    Start,
    /// An attempt ended, with this outcome.
    Settle(Outcome),
}

/// The actions of a worker's log that the checker reads; it skips all others.
pub const ACTIONS: [(&str, Step); 6] = [
    ("attempt_started", Step::Start),
    ("prediction_completed", Step::Settle(Outcome::Completed)),
    ("prediction_failed", Step::Settle(Outcome::Failed)),
    ("attempt_retried", Step::Settle(Outcome::Retried)),
    ("attempt_released", Step::Settle(Outcome::Released)),
    ("attempt_fenced", Step::Settle(Outcome::Fenced)),
];

/// The events in a worker's parsed log lines, see [`Logs::json`](crate::process::Logs::json).
///
/// # Panics
/// When a line with a known action lacks its timestamp, job id or attempt: then the check would prove less and not report it.
#[must_use]
pub fn worker_events(lines: &[Value]) -> Vec<Record> {
    lines.iter().filter_map(event).collect()
}

fn event(line: &Value) -> Option<Record> {
    let action = line["action"].as_str()?;
    let (_, step) = ACTIONS.iter().find(|(name, _)| *name == action && line["component"] == "worker")?;
    if action == "prediction_failed" && line["attempt"].is_null() && line["code"].is_string() {
        // The job failed instead of being granted once more: no attempt ended it, and Redis has the rest.
        return None;
    }
    let at_us = line["timestamp"].as_str().and_then(utc_us);
    let (Some(at_us), Some(id), Some(attempt)) = (at_us, line["job_id"].as_str(), line["attempt"].as_u64())
    else {
        panic!("a worker's log line lacks timestamp, job_id or attempt: {line}");
    };
    let id = id.to_owned();
    let event = match *step {
        Step::Start => Event::Started { id, attempt },
        Step::Settle(outcome) => Event::Settled { id, attempt, outcome },
    };
    Some(Record::at(at_us, event))
}

/// Microseconds since the epoch of `2025-11-13T15:00:00.123456Z`; `None` for anything but UTC in this form.
fn utc_us(text: &str) -> Option<u64> {
    let since = humantime::parse_rfc3339(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_micros()).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_utc_timestamp_becomes_microseconds() {
        assert_eq!(utc_us("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(utc_us("2000-02-29T12:00:00Z"), Some(951_825_600_000_000));
        assert_eq!(utc_us("2025-11-13T15:00:00.5Z"), Some(1_763_046_000_500_000));
        assert_eq!(utc_us("2025-11-13T15:00:00.123456789Z"), Some(1_763_046_000_123_456));
        assert_eq!(utc_us("2025-11-13 15:00"), None);
    }

    #[test]
    fn known_actions_become_events_and_others_are_skipped() {
        let line = |action: &str, component: &str| {
            let timestamp = "1970-01-01T00:00:01Z";
            json!({
                "timestamp": timestamp, "component": component, "job_id": "a", "attempt": 2, "action": action,
            })
        };
        let lines = [
            line("attempt_started", "worker"),
            line("prediction_completed", "worker"),
            line("prediction_completed", "proxy"),
            line("breaker_opened", "worker"),
            json!({"component": "worker", "job_id": "a", "action": "prediction_failed", "code": "worker_lost"}),
        ];

        let id = || "a".to_owned();
        let settled = Event::Settled { id: id(), attempt: 2, outcome: Outcome::Completed };
        assert_eq!(
            worker_events(&lines),
            [Record::at(1_000_000, Event::Started { id: id(), attempt: 2 }), Record::at(1_000_000, settled),]
        );
    }

    #[test]
    #[should_panic(expected = "lacks timestamp, job_id or attempt")]
    fn a_known_action_without_its_attempt_is_an_error() {
        let _ = worker_events(&[json!({"action": "attempt_started", "component": "worker", "job_id": "a"})]);
    }
}
