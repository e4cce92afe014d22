//! Counts the answers to attackers while the attack runs.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::wire::Answer;

/// Counts for all attackers together.
#[derive(Debug)]
pub(super) struct Tally {
    start: Instant,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    summary: Summary,
    admitted: BTreeMap<Ipv4Addr, Vec<Admitted>>,
}

/// A counted request that was admitted at some time between its sending and its answer.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Admitted {
    sent: Duration,
    answered: Duration,
    cost: u32,
}

/// The outcome of an attack.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Summary {
    /// Number of answers, by status and code, and of other outcomes.
    pub(super) outcomes: BTreeMap<String, u64>,
    pub(super) bytes_sent: u64,
    pub(super) bytes_answered: u64,
    /// Bytes of the largest body with a status of 400 or more, and of the largest body.
    pub(super) largest_error: usize,
    pub(super) largest_answer: usize,
    /// The largest part of one address's limit that was admitted in any 60 s.
    pub(super) most_in_a_minute: u32,
}

impl Tally {
    pub(super) fn new() -> Self {
        Self { start: Instant::now(), counts: Mutex::default() }
    }

    /// Counts an outcome that is no answer.
    pub(super) fn note(&self, what: &str) {
        *self.counts().summary.outcomes.entry(what.to_owned()).or_default() += 1;
    }

    pub(super) fn sent(&self, bytes: usize) {
        self.counts().summary.bytes_sent += bytes as u64;
    }

    pub(super) fn received(&self, bytes: usize) {
        self.counts().summary.bytes_answered += bytes as u64;
    }

    /// Counts an answer to a request that was sent at this time. `cost` is the least number of requests that it counts as.
    pub(super) fn answered(&self, from: Ipv4Addr, sent: Instant, cost: u32, answer: &Answer) {
        let code = if answer.status >= 400 { answer.code() } else { "" };
        let outcome =
            if code.is_empty() { answer.status.to_string() } else { format!("{} {code}", answer.status) };
        self.note(&outcome);
        let mut counts = self.counts();
        let summary = &mut counts.summary;
        summary.bytes_answered += (answer.head + answer.body.len()) as u64;
        summary.largest_answer = summary.largest_answer.max(answer.body.len());
        if answer.status >= 400 {
            summary.largest_error = summary.largest_error.max(answer.body.len());
        }
        // A request that was rejected before its work was known counts once.
        let cost = if answer.status < 400 { cost } else { cost.min(1) };
        if answer.status != 429 && cost > 0 {
            let (sent, answered) = (sent - self.start, self.start.elapsed());
            counts.admitted.entry(from).or_default().push(Admitted { sent, answered, cost });
        }
    }

    pub(super) fn summary(&self) -> Summary {
        let mut counts = self.counts();
        let most = counts.admitted.values_mut().map(|admitted| most_in_a_minute(admitted)).max();
        Summary { most_in_a_minute: most.unwrap_or(0), ..counts.summary.clone() }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The most requests that were surely admitted within 60 s, from the sending of one to the answer to another.
fn most_in_a_minute(admitted: &mut [Admitted]) -> u32 {
    admitted.sort_by_key(|request| request.answered);
    let by_answer = admitted.to_vec();
    admitted.sort_by_key(|request| request.sent);
    let (mut answered, mut next, mut sent, mut most) = (0_u32, 0, 0_u32, 0);
    for first in admitted.iter() {
        let end = first.sent + Duration::from_secs(60);
        while let Some(request) = by_answer.get(next).filter(|request| request.answered < end) {
            answered += request.cost;
            next += 1;
        }
        // Of those that were sent before, the few that are not answered yet are taken away, too: less is sure.
        most = most.max(answered.saturating_sub(sent));
        sent += first.cost;
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(sent: f64, answered: f64, cost: u32) -> Admitted {
        Admitted { sent: Duration::from_secs_f64(sent), answered: Duration::from_secs_f64(answered), cost }
    }

    #[test]
    fn only_what_surely_fell_into_one_minute_is_added_up() {
        let mut requests = vec![admitted(0.0, 0.1, 3), admitted(59.0, 59.9, 4), admitted(59.5, 60.1, 5)];
        assert_eq!(most_in_a_minute(&mut requests), 9);
        requests.push(admitted(10.0, 10.1, 1));
        assert_eq!(most_in_a_minute(&mut requests), 10);
        requests.push(admitted(0.2, 70.0, 1));
        assert_eq!(most_in_a_minute(&mut requests), 10);
        assert_eq!(most_in_a_minute(&mut []), 0);
    }

    #[test]
    fn answers_are_counted_by_status_and_code_and_refusals_cost_nothing() {
        let (tally, from) = (Tally::new(), Ipv4Addr::LOCALHOST);
        let answer = |status, body: &str| Answer { status, head: 10, body: body.into() };
        tally.answered(from, Instant::now(), 21, &answer(200, "{}"));
        tally.answered(from, Instant::now(), 21, &answer(429, r#"{"code":"rate_limited"}"#));
        tally.answered(from, Instant::now(), 0, &answer(404, "12345"));
        tally.answered(from, Instant::now(), 21, &answer(503, r#"{"code":"overloaded"}"#));
        tally.note("not connected");
        let summary = tally.summary();
        let outcomes: Vec<_> = summary.outcomes.iter().map(|(name, count)| (name.as_str(), *count)).collect();
        assert_eq!(
            outcomes,
            [("200", 1), ("404", 1), ("429 rate_limited", 1), ("503 overloaded", 1), ("not connected", 1)]
        );
        assert_eq!((summary.largest_error, summary.largest_answer, summary.bytes_answered), (23, 23, 91));
        assert_eq!(summary.most_in_a_minute, 22);
    }
}
