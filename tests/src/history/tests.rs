//! One history that keeps every promise, and for each invariant histories that break only that one.

mod jobs;
mod queue;

use serde_json::{Value, json};

use super::*;

/// The model of these tests doubles its input.
fn doubles(input: &Value, result: &Value) -> bool {
    input.as_i64().zip(result.as_i64()).is_some_and(|(input, result)| input * 2 == result)
}

fn job(status: &str, fields: &[(&str, &str)]) -> JobDump {
    let all = [&[("status", status), ("attempt", "1")], fields].concat();
    let fields = all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    JobDump { fields, ttl_ms: Some(86_000_000) }
}

fn submitted(id: &str, input: i64, key: Option<&str>) -> Event {
    Event::Submitted { id: id.to_owned(), input: json!(input), idempotency_key: key.map(str::to_owned) }
}

fn unknown(input: i64, key: Option<&str>) -> Event {
    Event::SubmitUnknown { input: json!(input), idempotency_key: key.map(str::to_owned) }
}

fn refused(input: i64, key: Option<&str>) -> Event {
    Event::Refused { status: 503, input: json!(input), idempotency_key: key.map(str::to_owned) }
}

fn observed(id: &str, body: Value) -> Event {
    Event::Observed { id: id.to_owned(), status: 200, body }
}

fn started(id: &str, attempt: u64) -> Event {
    Event::Started { id: id.to_owned(), attempt }
}

fn settled(id: &str, attempt: u64, outcome: Outcome) -> Event {
    Event::Settled { id: id.to_owned(), attempt, outcome }
}

/// Four accepted jobs: completed, completed after a lost lease, failed, cancelled; an unknown submit that was
/// accepted after all, one that was not, and a refused one. Times are seconds apart, in the order of the
/// list.
fn good() -> History {
    let events = [
        submitted("done", 1, Some("key")),
        submitted("done", 1, Some("key")),
        submitted("again", 2, None),
        submitted("bad", 3, None),
        submitted("stopped", 4, None),
        unknown(5, None),
        unknown(6, Some("lost")),
        refused(7, None),
        Event::Fault { kind: "kill9 worker".to_owned(), hits: 1 },
        started("done", 1),
        observed("done", json!({"status": "processing"})),
        settled("done", 1, Outcome::Completed),
        observed("done", json!({"status": "completed", "result": 2})),
        observed("done", json!({"status": "completed", "result": 2})),
        started("again", 1),
        started("again", 2),
        settled("again", 1, Outcome::Fenced),
        settled("again", 2, Outcome::Completed),
        started("bad", 1),
        settled("bad", 1, Outcome::Failed),
        Event::CancelAcked { id: "stopped".to_owned() },
        observed("stopped", json!({"status": "cancelled"})),
    ];
    let records = (1..).zip(events).map(|(second, event)| Record::at(second * 1_000_000, event)).collect();
    let jobs = [
        ("done", job("completed", &[("result", "2")])),
        ("again", job("completed", &[("result", "4"), ("attempt", "2"), ("lost", "1")])),
        ("bad", job("failed", &[("error", "model says no")])),
        ("stopped", job("cancelled", &[("attempt", "0")])),
        ("unseen", job("completed", &[("result", "10")])),
    ];
    let last = Final {
        jobs: jobs.map(|(id, job)| (id.to_owned(), job)).into(),
        inputs: [("bad".to_owned(), "3".to_owned())].into(),
        streams: [("{q:0}:stream:normal".to_owned(), StreamDump::default())].into(),
        idempotency_keys: 1,
        repairs: 1,
    };
    History { records, earlier: Vec::new(), last }
}

impl History {
    fn and(mut self, event: Event) -> Self {
        let at_us = self.records.last().map_or(0, |record| record.ended_us) + 1_000_000;
        self.records.push(Record::at(at_us, event));
        self
    }

    fn with_input(mut self, id: &str, input: &str) -> Self {
        self.last.inputs.insert(id.to_owned(), input.to_owned());
        self
    }

    fn with_job(mut self, id: &str, job: JobDump) -> Self {
        self.last.jobs.insert(id.to_owned(), job);
        self
    }

    fn without_job(mut self, id: &str) -> Self {
        self.last.jobs.remove(id);
        self
    }

    fn verdict(&self) -> Verdict {
        self.check(Rules::default(), doubles)
    }

    #[track_caller]
    fn breaks(self, invariant: Invariant) {
        let verdict = self.verdict();
        assert!(verdict.breaches(invariant), "expected a breach of {invariant:?}:\n{verdict}");
    }

    #[track_caller]
    fn breaks_only(self, invariant: Invariant) {
        let verdict = self.verdict();
        assert!(verdict.breaches(invariant), "expected a breach of {invariant:?}:\n{verdict}");
        assert!(
            verdict.violations.iter().all(|found| found.invariant == invariant),
            "more than that:\n{verdict}"
        );
    }
}

#[test]
fn a_good_history_holds_and_is_counted() {
    let verdict = good().verdict();

    verdict.assert_holds();
    let all = Counts { accepted: 4, completed: 2, failed: 1, cancelled: 1, ..Counts::default() };
    assert_eq!((verdict.all, verdict.ambiguous, verdict.lost_leases), (all, 2, 1));
    assert_eq!(verdict.faults, [("kill9 worker".to_owned(), 1)].into());
}

#[test]
fn an_empty_history_holds() {
    History::default().verdict().assert_holds();
}

#[test]
fn the_verdict_prints_as_a_table() {
    let text = good().without_job("bad").verdict().to_string();

    assert!(text.contains("accepted                        4\n"), "{text}");
    assert!(text.contains("fault: kill9 worker             1\n"), "{text}");
    assert!(text.ends_with("I1   bad: accepted, but not in the last dump"), "{text}");
}

#[test]
fn records_survive_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history.jsonl");
    let recorder = Recorder::open(&path).unwrap();
    for record in good().records {
        recorder.append(&record);
    }

    assert_eq!(recorder.records(), good().records);
    assert_eq!(load(&path).unwrap(), good().records);
    let last = std::fs::read_to_string(&path).unwrap();
    let times = r#"{"began_us":22000000,"ended_us":22000000,"#;
    let event = r#""event":"observed","id":"stopped","status":200,"body":{"status":"cancelled"}}"#;
    assert_eq!(last.lines().last(), Some(format!("{times}{event}").as_str()));
}

#[test]
fn a_broken_line_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history.jsonl");
    std::fs::write(&path, "{}\n").unwrap();

    assert!(load(&path).unwrap_err().to_string().starts_with("line 1: "));
}

#[test]
fn answers_become_submit_events() {
    use crate::http::{Answer, Bytes, HeaderMap};
    let answer = |status, body: &'static str| {
        Ok(Answer { status, headers: HeaderMap::new(), body: Bytes::from_static(body.as_bytes()) })
    };
    let event = |answer| Event::of_submit(&answer, &json!(1), None);

    assert_eq!(event(answer(202, r#"{"job_id": "a", "status": "pending"}"#)), submitted("a", 1, None));
    assert_eq!(event(answer(503, "{}")), refused(1, None));
    assert_eq!(event(answer(503, r#"{"code": "service_unavailable"}"#)), refused(1, None));
    assert_eq!(event(answer(503, r#"{"code": "outcome_unknown"}"#)), unknown(1, None));
    assert_eq!(event(answer(503, r#"{"code": "not_replicated"}"#)), unknown(1, None));
    assert_eq!(event(answer(500, "{}")), unknown(1, None));
    assert_eq!(event(Err(NoAnswer::Unknown(String::new()))), unknown(1, None));
    assert!(matches!(event(Err(NoAnswer::NotSent(String::new()))), Event::Refused { status: 0, .. }));
}
