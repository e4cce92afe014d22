//! The input of the checker, and its records grouped by job.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::time::Duration;

use serde_json::Value;

use super::{Counts, Event, Final, Invariant, JobDump, Outcome, Record, Verdict, Violation};

/// A whole run.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The records of clients, workers and the test itself, in any order.
    pub records: Vec<Record>,
    /// Dumps taken during the run, oldest first; what is terminal there must still be so at the end.
    pub earlier: Vec<Final>,
    /// The dump taken at the end, when everything had the time that I1 grants.
    pub last: Final,
}

/// The limits that the services of the run were configured with.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// First try and retries: `MAX_RETRIES` + 1.
    pub max_attempts: u64,
    /// Leases that a job may lose before it fails.
    pub max_lost_leases: u64,
    /// How long after a start a worker may log it, on a loaded machine.
    pub log_delay: Duration,
}

impl Default for Rules {
    /// The services' defaults.
    fn default() -> Self {
        Self { max_attempts: 4, max_lost_leases: 3, log_delay: Duration::from_secs(1) }
    }
}

/// One answer of `GET /job/{id}`: its record, HTTP status and body.
pub(super) type Read<'a> = (&'a Record, u16, &'a Value);

/// All facts about one job.
#[derive(Debug, Default)]
pub(super) struct JobFacts<'a> {
    pub(super) accepted: bool,
    pub(super) input: Option<&'a Value>,
    pub(super) accepted_us: u64,
    pub(super) cancelled_us: Option<u64>,
    pub(super) observed: Vec<Read<'a>>,
    /// (attempt, when)
    pub(super) started: Vec<(u64, u64)>,
    pub(super) settled: Vec<(u64, Outcome)>,
    pub(super) dump: Option<&'a JobDump>,
}

/// A submit that did not end with an accepted job.
#[derive(Debug)]
pub(super) struct Attempted<'a> {
    pub(super) input: &'a Value,
    pub(super) key: Option<&'a str>,
}

/// The history by job, and the violations found so far.
pub(super) struct Case<'a> {
    pub(super) history: &'a History,
    pub(super) rules: Rules,
    pub(super) oracle: &'a dyn Fn(&Value, &Value) -> bool,
    pub(super) jobs: BTreeMap<&'a str, JobFacts<'a>>,
    pub(super) unknown: Vec<Attempted<'a>>,
    /// Job -> how many requeues of it had an unknown outcome.
    pub(super) unknown_requeues: BTreeMap<&'a str, usize>,
    pub(super) refused: Vec<Attempted<'a>>,
    /// Idempotency key -> the jobs that clients got for it.
    pub(super) keys: BTreeMap<&'a str, BTreeSet<&'a str>>,
    pub(super) verdict: Verdict,
}

impl<'a> Case<'a> {
    pub(super) fn new(
        history: &'a History,
        rules: Rules,
        oracle: &'a dyn Fn(&Value, &Value) -> bool,
    ) -> Self {
        let mut case = Self {
            history,
            rules,
            oracle,
            jobs: BTreeMap::new(),
            unknown: Vec::new(),
            unknown_requeues: BTreeMap::new(),
            refused: Vec::new(),
            keys: BTreeMap::new(),
            verdict: Verdict::default(),
        };
        for record in &history.records {
            case.add(record);
        }
        for (id, dump) in &history.last.jobs {
            case.job(id).dump = Some(dump);
        }
        case
    }

    fn add(&mut self, record: &'a Record) {
        match &record.event {
            Event::Submitted { id, input, idempotency_key } => {
                let job = self.job(id);
                let first = if job.accepted { job.accepted_us.min(record.ended_us) } else { record.ended_us };
                (job.accepted, job.accepted_us, job.input) = (true, first, Some(input));
                if let Some(key) = idempotency_key {
                    self.keys.entry(key).or_default().insert(id);
                }
            }
            Event::SubmitUnknown { input, idempotency_key } => {
                self.unknown.push(Attempted { input, key: idempotency_key.as_deref() });
            }
            Event::Refused { input, idempotency_key, .. } => {
                self.refused.push(Attempted { input, key: idempotency_key.as_deref() });
            }
            Event::RequeueUnknown { of } => *self.unknown_requeues.entry(of).or_default() += 1,
            Event::CancelAcked { id } => {
                let first = self.job(id).cancelled_us.map_or(record.ended_us, |at| at.min(record.ended_us));
                self.job(id).cancelled_us = Some(first);
            }
            Event::Observed { id, status, body } => self.job(id).observed.push((record, *status, body)),
            Event::Started { id, attempt } => self.job(id).started.push((*attempt, record.began_us)),
            Event::Settled { id, attempt, outcome } => self.job(id).settled.push((*attempt, *outcome)),
            Event::Fault { kind, hits } => *self.verdict.faults.entry(kind.clone()).or_default() += hits,
        }
    }

    fn job(&mut self, id: &'a str) -> &mut JobFacts<'a> {
        self.jobs.entry(id).or_default()
    }

    pub(super) fn violation(&mut self, invariant: Invariant, subject: impl Display, what: impl Display) {
        let (subject, what) = (subject.to_string(), what.to_string());
        self.verdict.violations.push(Violation { invariant, subject, what });
    }

    pub(super) fn count(&mut self) {
        let verdict = &mut self.verdict;
        verdict.ambiguous = self.unknown.len() + self.unknown_requeues.values().sum::<usize>();
        for job in self.jobs.values() {
            verdict.lost_leases += job.dump.map_or(0, |dump| dump.number("lost"));
            job.count_in(&mut verdict.all);
            job.count_in(verdict.by_model.entry(job.model().to_owned()).or_default());
        }
    }
}

impl JobFacts<'_> {
    /// The name of its model, empty if it is unknown.
    fn model(&self) -> &str {
        let sent = self.input.and_then(|input| input["model"].as_str());
        sent.unwrap_or_else(|| self.dump.map_or("", JobDump::model))
    }

    fn count_in(&self, counts: &mut Counts) {
        counts.doubled += usize::from(self.outcomes().len() > 1);
        if !self.accepted {
            return;
        }
        counts.accepted += 1;
        match self.dump.map_or("", JobDump::status) {
            "completed" => counts.completed += 1,
            "failed" => counts.failed += 1,
            "cancelled" => counts.cancelled += 1,
            _ => counts.lost += 1,
        }
    }

    /// Every terminal outcome that anyone saw, with the attempt where a worker reported it (0 for other
    /// witnesses). A worker that stores an outcome and a client that reads it are witnesses of one outcome.
    pub(super) fn outcomes(&self) -> BTreeSet<String> {
        let read = self.observed.iter().filter_map(|(_, _, body)| body["status"].as_str());
        let stored = self.dump.map(JobDump::status);
        let is_terminal = |status: &&str| crate::http::TERMINAL.contains(status);
        let statuses: BTreeSet<&str> = read.chain(stored).filter(is_terminal).collect();
        let settled: BTreeSet<String> = self.settled.iter().filter_map(settled_as).collect();
        let unsettled =
            statuses.iter().filter(|status| !settled.iter().any(|outcome| outcome.starts_with(**status)));
        let unsettled: Vec<String> = unsettled.map(|status| (*status).to_owned()).collect();
        settled.into_iter().chain(unsettled).collect()
    }
}

fn settled_as((attempt, outcome): &(u64, Outcome)) -> Option<String> {
    match outcome {
        Outcome::Completed => Some(format!("completed by attempt {attempt}")),
        Outcome::Failed => Some(format!("failed by attempt {attempt}")),
        Outcome::Retried | Outcome::Released | Outcome::Fenced => None,
    }
}
