//! A job may fail only because of a fault that can have failed it, or because of its own time limit. A failure that no fault
//! justifies is a broken promise.

use std::collections::BTreeMap;

use super::Injected;
use crate::history::{Final, JobDump};

/// How long after its end a fault may have effects: a hanging call is abandoned after three seconds, and a retry comes later.
const SHOWS_WITHIN_US: u64 = 10_000_000;

/// Why jobs failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// Model, error code, and what justifies it -> number of jobs.
    pub justified: BTreeMap<[String; 3], u64>,
    /// A sentence about each job that failed for no reason.
    pub unjustified: Vec<String>,
}

/// The faults that can have failed a job with this code, by the beginning of their names.
fn causes(code: &str) -> &'static [&'static str] {
    match code {
        "worker_lost" => &[
            "kill -9 worker",
            "freeze worker",
            "SIGTERM worker",
            "worker-redis",
            "kill -9 Redis",
            "freeze Redis",
        ],
        "model_lost" => &["worker-model", "freeze worker"],
        "model_error" => &["model call: INTERNAL"],
        "model_overloaded" => &["model call: RESOURCE_EXHAUSTED"],
        "model_rejected" => &["model call: INVALID_ARGUMENT"],
        "inference_timeout" => &[
            "model call: DEADLINE_EXCEEDED",
            "model call: slow",
            "model call: no answer",
            "worker-model",
            "freeze worker",
        ],
        "bad_model_answer" => &[
            "model call: NaN",
            "model call: wrong shape",
            "model call: missing row",
            "model call: missing output",
            "model call: too few values",
        ],
        _ => &[],
    }
}

/// Names the fault behind each failed job.
#[must_use]
pub fn justify(last: &Final, faults: &[Injected]) -> Failures {
    let mut failures = Failures::default();
    for (id, job) in last.jobs.iter().filter(|(_, job)| job.status() == "failed") {
        let code = job.fields.get("error_code").map_or("none", String::as_str);
        match justification(job, code, faults) {
            Some(why) => {
                *failures.justified.entry([job.model().to_owned(), code.to_owned(), why]).or_default() += 1;
            }
            None => failures.unjustified.push(format!("{id} failed as {code}, and no fault justifies it")),
        }
    }
    failures
}

fn justification(job: &JobDump, code: &str, faults: &[Injected]) -> Option<String> {
    match code {
        "queue_timeout" => return Some("its own max_queue_seconds".to_owned()),
        "timeout" => return Some("its own timeout_seconds".to_owned()),
        _ => {}
    }
    let created_us = job.number("at") * 1_000;
    let ended_us = created_us + (job.number("took_ms") + 1) * 1_000;
    let can_have = |fault: &&Injected| {
        let overlaps = fault.began_us <= ended_us && created_us <= fault.ended_us + SHOWS_WITHIN_US;
        let is_of_model = fault.model.is_none_or(|model| model == job.model());
        overlaps && is_of_model && causes(code).iter().any(|cause| fault.kind.starts_with(cause))
    };
    // The last that began before the end is the likeliest.
    faults.iter().filter(can_have).max_by_key(|fault| fault.began_us).map(|fault| fault.kind.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last(code: &str) -> Final {
        let fields =
            [("status", "failed"), ("m", "toy"), ("error_code", code), ("at", "5000"), ("took_ms", "2000")];
        let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let jobs = [("a".to_owned(), JobDump { fields, ttl_ms: Some(1) })].into();
        Final { jobs, ..Final::default() }
    }

    fn fault(kind: &str, began_s: u64, ended_s: u64) -> Injected {
        Injected {
            kind: kind.to_owned(),
            began_us: began_s * 1_000_000,
            ended_us: ended_s * 1_000_000,
            model: None,
        }
    }

    fn is_justified(code: &str, faults: &[Injected]) -> bool {
        justify(&last(code), faults).unjustified.is_empty()
    }

    #[test]
    fn only_a_fault_of_the_right_kind_and_time_justifies_a_failure() {
        let internal = |began_s, ended_s| [fault("model call: INTERNAL", began_s, ended_s)];
        assert!(is_justified("model_error", &internal(5, 6)));
        assert!(!is_justified("model_error", &internal(8, 9)), "it came later");
        assert!(!is_justified("model_rejected", &internal(5, 6)), "it does something else");
        assert!(!is_justified("model_rejected", &[fault(super::super::NOT_READY, 5, 6)]));
        assert!(!is_justified("model_overloaded", &[fault(super::super::LARGE_BATCHES, 5, 6)]));
        assert!(!is_justified("model_error", &[]));
        assert!(is_justified("queue_timeout", &[]));
        let on_server = |model| [Injected { model: Some(model), ..fault("model call: INTERNAL", 5, 6) }];
        assert!(is_justified("model_error", &on_server("toy")));
        assert!(!is_justified("model_error", &on_server("wide")), "it hit another model");
    }

    #[test]
    fn the_fault_is_named() {
        let failures = justify(&last("model_lost"), &[fault("worker-model: connections cut", 6, 6)]);
        let named = ["toy", "model_lost", "worker-model: connections cut"].map(str::to_owned);
        assert_eq!(failures.justified, [(named, 1)].into());
    }
}
