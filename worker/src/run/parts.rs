//! The parts of a batch that still need a call. A failed call is halved until the job to blame is alone, or until the parts
//! are small enough.

use std::time::Duration;

use tepal_shared::{job::Attempt, process::retry::Backoff};
use tokio::time::Instant;

use crate::{
    backend::{Evidence, Verdict},
    run::{batch::MicroBatch, vitals::Vitals},
};

/// Pauses between consecutive failures: a server in trouble is not called as fast as it fails.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// Some jobs of a batch, and the evidence from their calls.
#[derive(Debug)]
pub struct Part {
    /// The jobs.
    pub batch: MicroBatch,
    /// When the part was last called.
    pub called_at: Instant,
    /// How often the call waited for an overloaded server.
    waits: u32,
    is_examined: bool,
    is_repeated: bool,
    is_deferred: bool,
    /// When the backend first refused the call, if nothing but other calls can show why.
    refused_at: Option<Instant>,
    refusals: u32,
}

/// The rest of a batch.
#[derive(Debug)]
pub struct Parts {
    /// The last element is the next part.
    waiting: Vec<Part>,
    began: Instant,
    backoff: Backoff,
    is_server_in_trouble: bool,
    /// Fewest rows of a shared call that failed.
    failed_rows: Option<usize>,
    /// Whether a lone job failed, too.
    is_job_to_blame: bool,
}

impl Part {
    fn new(batch: MicroBatch) -> Self {
        let (is_examined, is_repeated, is_deferred) = (false, false, false);
        let (called_at, waits, refused_at, refusals) = (Instant::now(), 0, None, 0);
        Self { batch, called_at, waits, is_examined, is_repeated, is_deferred, refused_at, refusals }
    }

    /// Whether several jobs share the call.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.batch.items.len() > 1
    }

    /// The backend refused the call. Returns when it first did so, and how often.
    pub fn refused(&mut self) -> (Instant, u32) {
        self.refusals += 1;
        (*self.refused_at.get_or_insert_with(Instant::now), self.refusals)
    }

    /// The model has answered its sample, or other calls have shown as much.
    pub fn examined(&mut self) {
        self.is_examined = true;
    }
}

impl Parts {
    /// A batch before its first call.
    #[must_use]
    pub fn of(batch: MicroBatch) -> Self {
        Self {
            waiting: vec![Part::new(batch)],
            began: Instant::now(),
            backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE),
            is_server_in_trouble: false,
            failed_rows: None,
            is_job_to_blame: false,
        }
    }

    /// The next part, with at most this many rows unless it is a single job.
    pub fn next(&mut self, max_rows: usize) -> Option<Part> {
        let mut part = self.waiting.pop()?;
        if let Some(rest) = part.batch.split_off_above(max_rows) {
            self.waiting.push(Part::new(rest));
        }
        Some(part)
    }

    /// Removes and returns the rest, to release it.
    pub fn rest(&mut self) -> Vec<Attempt> {
        let parts = self.waiting.drain(..);
        parts.flat_map(|part| part.batch.items).map(|item| item.attempt).collect()
    }

    /// The evidence about a failed call.
    #[must_use]
    pub fn evidence(&self, part: &Part, vitals: &Vitals) -> Evidence {
        Evidence {
            is_shared: part.is_shared(),
            is_serving: vitals.is_serving(),
            has_succeeded: vitals.has_succeeded_since(self.began),
            is_examined: part.is_examined,
            is_repeated: part.is_repeated,
            waits: part.waits,
            is_put_off: false,
        }
    }

    /// A call succeeded.
    pub fn succeeded(&mut self) {
        self.backoff.reset();
        self.is_server_in_trouble = false;
    }

    /// A call failed.
    pub fn failed(&mut self, verdict: Verdict) {
        self.is_server_in_trouble = matches!(verdict, Verdict::Failed | Verdict::Refused);
    }

    /// How long to wait before the next call.
    pub fn pause(&mut self) -> Option<Duration> {
        self.is_server_in_trouble.then(|| self.backoff.next_pause())
    }

    /// Call the failed part in halves.
    pub fn split(&mut self, part: Part) {
        let rows = part.batch.rows();
        self.failed_rows = Some(self.failed_rows.map_or(rows, |fewest| fewest.min(rows)));
        let (first, second) = part.batch.bisect();
        self.waiting.extend(second.into_iter().chain([first]).map(Part::new));
    }

    /// Call the failed part again, after a pause for the server.
    pub fn wait(&mut self, part: Part) {
        self.waiting.push(Part { waits: part.waits + 1, ..part });
    }

    /// Call the failed part again at once.
    pub fn repeat(&mut self, part: Part) {
        self.waiting.push(Part { is_repeated: true, ..part });
    }

    /// Whether the part can be called after others, which it was not yet.
    #[must_use]
    pub fn may_defer(&self, part: &Part) -> bool {
        !part.is_deferred && !self.waiting.is_empty()
    }

    /// The failed part is called again after all others.
    pub fn defer(&mut self, part: Part) {
        self.waiting.insert(0, Part { is_deferred: true, ..part });
    }

    /// A lone job failed.
    pub fn blame_job(&mut self) {
        self.is_job_to_blame = true;
    }

    /// When all parts have run: the number of rows that was too many, if only the number explains the failures.
    #[must_use]
    pub fn too_many_rows(&self) -> Option<usize> {
        self.failed_rows.filter(|_| !self.is_job_to_blame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{run::batch::Item, testing::attempt};

    fn batch(rows: &[usize]) -> MicroBatch {
        let item = |rows: &usize| Item {
            attempt: attempt(),
            input: tepal_shared::model::JobInput { rows: *rows, tensors: Vec::new() },
            form: Default::default(),
        };
        MicroBatch { items: rows.iter().map(item).collect() }
    }

    fn rows(part: &Part) -> Vec<usize> {
        part.batch.items.iter().map(|item| item.input.rows).collect()
    }

    #[test]
    fn a_part_has_no_more_rows_than_allowed_at_present() {
        let mut parts = Parts::of(batch(&[1, 2, 3, 9, 1]));
        let mut all = Vec::new();
        while let Some(part) = parts.next(4) {
            all.push(rows(&part));
        }
        assert_eq!(all, [vec![1, 2], vec![3], vec![9], vec![1]]);
    }

    #[test]
    fn the_halves_of_a_failed_part_come_next() {
        let mut parts = Parts::of(batch(&[1; 8]));
        let whole = parts.next(8);
        whole.into_iter().for_each(|part| parts.split(part));
        let mut sizes = Vec::new();
        while let Some(part) = parts.next(8) {
            sizes.push(part.batch.rows());
        }
        assert_eq!((sizes, parts.too_many_rows()), (vec![4, 4], Some(8)));
        parts.blame_job();
        assert_eq!(parts.too_many_rows(), None);
    }
}
