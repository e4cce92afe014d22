//! What clients know: which jobs were accepted, and what they read of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::stack::Looked;
use crate::http::is_terminal;

/// Probabilities are single-precision numbers.
const ROUNDING: f64 = 1e-6;

/// Everything that clients recorded.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
pub(super) struct Book {
    /// In the order of acceptance. An id may be acknowledged more than once.
    pub(super) accepted: Vec<Accepted>,
    pub(super) jobs: HashMap<String, Seen>,
    /// The ids that each key led to.
    pub(super) keys: HashMap<String, BTreeSet<String>>,
    /// How often each answer other than 202 came.
    pub(super) refused: BTreeMap<String, u64>,
    pub(super) slowest: Duration,
    /// Broken promises.
    pub(super) violations: Vec<String>,
    /// Jobs that ended more than once, with equal results.
    pub(super) ran_again: BTreeSet<String>,
    /// Jobs that a lookup did not find and a later one did.
    pub(super) found_again: BTreeSet<String>,
    /// Lost jobs up to the last fault.
    pub(super) lost_before: usize,
    /// Jobs that had run again by then.
    pub(super) ran_again_before: usize,
    /// Lost jobs that each proxy, and each worker, had reported by then.
    pub(super) reported_before: (Vec<u64>, Vec<u64>),
}

/// A 202.
#[derive(Clone, Debug)]
pub(super) struct Accepted {
    pub(super) id: String,
    pub(super) at: Instant,
}

/// What was read of an accepted job.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// Its first end.
    pub(super) ended: Option<Ended>,
    /// Whether the last lookup did not find it.
    pub(super) is_gone: bool,
    /// Its status when it was read last.
    pub(super) status: String,
}

/// The end of a job.
#[derive(Clone, Debug)]
pub(super) struct Ended {
    result: Value,
    finished_at: String,
    /// From its creation to the start of its last attempt.
    pub(super) waited: Duration,
}

impl Ledger {
    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The jobs accepted before that time that have neither ended nor gone.
    pub(super) fn open_before(&self, time: Instant) -> Vec<String> {
        let book = self.book();
        let open = |id: &String| book.jobs.get(id).is_some_and(|seen| seen.ended.is_none() && !seen.is_gone);
        let ids = book.accepted.iter().filter(|accepted| accepted.at < time).map(|accepted| &accepted.id);
        ids.filter(|id| open(id)).cloned().collect()
    }

    /// The jobs accepted since that time.
    pub(super) fn since(&self, time: Option<Instant>) -> Vec<String> {
        let book = self.book();
        let is_later = |accepted: &&Accepted| time.is_none_or(|time| accepted.at >= time);
        book.accepted.iter().filter(is_later).map(|accepted| accepted.id.clone()).collect()
    }

    /// The lost jobs, and those that the services had reported, up to the last fault.
    pub(super) fn so_far(&self) -> (usize, (Vec<u64>, Vec<u64>)) {
        let book = self.book();
        (book.lost_before, book.reported_before.clone())
    }

    /// The jobs that are gone.
    pub(super) fn gone(&self) -> usize {
        self.book().jobs.values().filter(|seen| seen.is_gone).count()
    }
}

impl Book {
    pub(super) fn accept(&mut self, id: &str, key: Option<&str>) {
        self.accepted.push(Accepted { id: id.to_owned(), at: Instant::now() });
        self.jobs.entry(id.to_owned()).or_default();
        if let Some(key) = key {
            self.keys.entry(key.to_owned()).or_default().insert(id.to_owned());
        }
    }

    pub(super) fn refuse(&mut self, reason: String) {
        *self.refused.entry(reason).or_default() += 1;
    }

    /// Compares with what was read before.
    pub(super) fn read(&mut self, looked: &Looked) {
        for id in &looked.not_found {
            if let Some(seen) = self.jobs.get_mut(id) {
                seen.is_gone = true;
            }
        }
        for job in &looked.jobs {
            self.read_job(job);
        }
    }

    fn read_job(&mut self, job: &Value) {
        let id = job["job_id"].as_str().unwrap_or_default();
        let Some(seen) = self.jobs.get_mut(id) else { return };
        seen.status = job["status"].as_str().unwrap_or_default().to_owned();
        if std::mem::take(&mut seen.is_gone) {
            self.found_again.insert(id.to_owned());
        }
        if !is_terminal(job) {
            if seen.ended.is_some() {
                self.ran_again.insert(id.to_owned());
            }
            return;
        }
        let now = Ended::of(job);
        let Some(before) = &seen.ended else {
            seen.ended = Some(now);
            return;
        };
        if !is_same(&before.result, &now.result) {
            self.violations.push(format!("{id} has two results: {} and {}", before.result, now.result));
        } else if before.finished_at != now.finished_at {
            self.ran_again.insert(id.to_owned());
        }
    }

    /// The longest time without an accepted job of these partitions.
    pub(super) fn longest_gap(&self, from: Instant, to: Instant, wanted: impl Fn(u8) -> bool) -> Duration {
        let is_wanted = |accepted: &&Accepted| wanted(partition(&accepted.id));
        let times = self.accepted.iter().filter(is_wanted).map(|accepted| accepted.at);
        let before = times.clone().filter(|at| *at < from).max().unwrap_or(from);
        let within = times.filter(|at| *at >= from && *at <= to);
        let (last, longest) = within.fold((before, Duration::ZERO), |(last, longest), at| {
            (last.max(at), longest.max(at.saturating_duration_since(last)))
        });
        longest.max(to.saturating_duration_since(last))
    }

    /// How long the jobs of these partitions waited that were accepted in this time, shortest first.
    pub(super) fn waits(&self, from: Instant, to: Instant, wanted: impl Fn(u8) -> bool) -> Vec<Duration> {
        let accepted = self.accepted.iter().filter(|accepted| accepted.at >= from && accepted.at <= to);
        let ids = accepted.map(|accepted| &accepted.id).filter(|id| wanted(partition(id)));
        let mut waits: Vec<_> =
            ids.filter_map(|id| Some(self.jobs.get(id)?.ended.as_ref()?.waited)).collect();
        waits.sort_unstable();
        waits
    }
}

impl Ended {
    fn of(job: &Value) -> Self {
        let time = |name: &str| humantime::parse_rfc3339(job[name].as_str()?).ok();
        let waited = || time("started_at")?.duration_since(time("created_at")?).ok();
        Self {
            result: [&job["status"], &job["result"], &job["error_code"]].into_iter().cloned().collect(),
            finished_at: job["finished_at"].as_str().unwrap_or_default().to_owned(),
            waited: waited().unwrap_or_default(),
        }
    }

    /// Why it failed, if it did not complete.
    pub(super) fn failure(&self) -> Option<String> {
        (self.result[0] != "completed").then(|| self.result.to_string())
    }
}

/// Whether two results are equal up to rounding: the model computes a batch of another size in another order.
fn is_same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| is_same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            let is_there = |(name, value)| other.get(name).is_some_and(|other| is_same(value, other));
            one.len() == other.len() && one.iter().all(is_there)
        }
        (Value::Number(one), Value::Number(other)) => match (one.as_f64(), other.as_f64()) {
            (Some(one), Some(other)) => (one - other).abs() <= ROUNDING,
            _ => one == other,
        },
        _ => one == other,
    }
}

/// The partition of a job: the last byte of its id.
pub(super) fn partition(id: &str) -> u8 {
    id.get(id.len().saturating_sub(2)..).and_then(|hex| u8::from_str_radix(hex, 16).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn job(status: &str, result: u8, finished: &str) -> Value {
        json!({"job_id": "a02", "status": status, "result": result, "finished_at": finished})
    }

    fn read(book: &mut Book, jobs: Vec<Value>, gone: &[&str]) {
        let not_found = gone.iter().map(|id| (*id).to_owned()).collect();
        book.read(&Looked { jobs, not_found });
    }

    #[test]
    fn a_second_result_is_a_violation_and_an_equal_one_is_counted() {
        let mut book = Book::default();
        book.accept("a02", None);
        read(&mut book, vec![job("completed", 1, "x")], &[]);
        read(&mut book, vec![job("completed", 1, "x")], &[]);
        assert!(book.ran_again.is_empty());
        read(&mut book, vec![job("completed", 1, "y")], &[]);
        assert_eq!(book.ran_again.len(), 1);
        assert!(book.violations.is_empty());
        read(&mut book, vec![job("completed", 2, "y")], &[]);
        assert_eq!(book.violations.len(), 1);
        read(&mut book, Vec::new(), &["a02"]);
        assert!(book.jobs["a02"].is_gone);
    }

    #[test]
    fn results_are_compared_up_to_rounding() {
        let result = |number: f64| json!(["completed", {"class": 1, "probabilities": [number, 0.5]}, null]);
        assert!(is_same(&result(0.164_534_35), &result(0.164_534_33)));
        assert!(!is_same(&result(0.1645), &result(0.1646)));
        assert!(!is_same(&json!([1, 2]), &json!([1])));
        assert!(!is_same(&json!({"class": 1}), &json!({"kind": 1})));
    }

    #[test]
    fn gaps_are_counted_to_the_end_and_by_partition() {
        let mut book = Book::default();
        let from = Instant::now();
        let second = |number| from + Duration::from_secs(number);
        for (at, id) in [(1, "a02"), (2, "a03"), (6, "a02")] {
            book.accepted.push(Accepted { id: id.to_owned(), at: second(at) });
        }
        assert_eq!(book.longest_gap(from, second(7), |_| true), Duration::from_secs(4));
        assert_eq!(book.longest_gap(from, second(7), |of| of == 3), Duration::from_secs(5));
        assert_eq!(book.longest_gap(second(4), second(7), |of| of == 2), Duration::from_secs(5));
    }
}
