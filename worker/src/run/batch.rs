//! Groups claimed jobs into model calls. Most jobs share a call. A job in quarantine, or with its own time limit, is
//! called alone.

use tepal_shared::{
    job::{Attempt, Delivery},
    model::{InputError, Model, Rows},
    tensor::Batch,
};

/// A job with the rows of its input.
#[derive(Clone, Debug)]
pub struct Item {
    /// This attempt at the job.
    pub attempt: Attempt,
    /// Its rows.
    pub rows: Rows,
}

/// Jobs that share one model call.
#[derive(Clone, Debug, Default)]
pub struct MicroBatch {
    /// The jobs, in the order of their rows.
    pub items: Vec<Item>,
}

/// When a call has enough jobs.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most rows; a job with more is called alone, never split.
    pub rows: usize,
    /// Bytes of tensors after which no further job is added.
    pub bytes: usize,
}

/// The calls for a set of claimed jobs, and the jobs that cannot be called.
#[derive(Debug, Default)]
pub struct Plan {
    /// The calls to make.
    pub batches: Vec<MicroBatch>,
    /// Jobs whose input does not fit the model.
    pub unfit: Vec<(Attempt, InputError)>,
}

impl Plan {
    /// Groups the jobs into calls within the limits. Their inputs become tensors and are dropped.
    #[must_use]
    pub fn new(model: &Model, deliveries: Vec<Delivery>, limits: Limits) -> Self {
        let mut plan = Self::default();
        let mut open = MicroBatch::default();
        for Delivery { attempt, input } in deliveries {
            match read(model, &input) {
                Err(error) => plan.unfit.push((attempt, error)),
                Ok(rows) if must_be_alone(&attempt) => {
                    plan.batches.push(MicroBatch { items: vec![Item { attempt, rows }] });
                }
                Ok(rows) => {
                    if !open.items.is_empty() && !open.has_room(&rows, limits) {
                        plan.batches.push(std::mem::take(&mut open));
                    }
                    open.items.push(Item { attempt, rows });
                }
            }
        }
        if !open.items.is_empty() {
            plan.batches.push(open);
        }
        plan
    }
}

fn must_be_alone(attempt: &Attempt) -> bool {
    attempt.is_suspect() || attempt.time_left.is_some()
}

/// The proxy has checked the input, but the model's description may have changed since.
fn read(model: &Model, input: &str) -> Result<Rows, InputError> {
    let unreadable = |error: serde_json::Error| InputError {
        pointer: "/data".to_owned(),
        detail: format!("is not JSON: {error}"),
        code: "type",
    };
    let data = serde_json::from_str(input).map_err(unreadable)?;
    model.read_rows(&data).map_err(|mut errors| errors.swap_remove(0))
}

impl MicroBatch {
    /// Number of rows of all jobs.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.items.iter().map(|item| item.rows.rows).sum()
    }

    fn has_room(&self, more: &Rows, limits: Limits) -> bool {
        let bytes: usize = self.items.iter().map(|item| item.rows.bytes()).sum();
        self.rows() + more.rows <= limits.rows && bytes < limits.bytes
    }

    /// The rows of all jobs as the model takes them.
    #[must_use]
    pub fn concatenate(&self, model: &Model) -> Batch {
        model.concatenate(self.items.iter().map(|item| &item.rows))
    }

    /// Each job with the number of its first row.
    pub fn split(&self) -> impl Iterator<Item = (&Item, usize)> {
        self.items.iter().scan(0, |next, item| {
            let from = *next;
            *next += item.rows.rows;
            Some((item, from))
        })
    }

    /// Two batches of half the jobs each, to find the job that makes the call fail. The second is `None` for a single job.
    #[must_use]
    pub fn bisect(self) -> (Self, Option<Self>) {
        let half = self.items.len().div_ceil(2);
        self.split_at(half)
    }

    /// Keeps the jobs that fit into `max_rows` rows, at least one. Returns the others.
    pub fn split_off_above(&mut self, max_rows: usize) -> Option<Self> {
        let fitting = self.split().take_while(|(item, from)| *from == 0 || from + item.rows.rows <= max_rows);
        let count = fitting.count();
        let (kept, rest) = std::mem::take(self).split_at(count);
        *self = kept;
        rest
    }

    fn split_at(mut self, count: usize) -> (Self, Option<Self>) {
        let rest = self.items.split_off(count.min(self.items.len()));
        (self, (!rest.is_empty()).then_some(Self { items: rest }))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::{path::Path, time::Duration};

    use super::*;
    use crate::testing::delivery;

    fn iris() -> Model {
        Model::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../compose/models"), "iris").unwrap()
    }

    /// A limit of rows only.
    fn up_to(rows: usize) -> Limits {
        Limits { rows, bytes: usize::MAX }
    }

    fn rows_of(plan: &Plan) -> Vec<Vec<usize>> {
        let rows = |batch: &MicroBatch| batch.items.iter().map(|item| item.rows.rows).collect();
        plan.batches.iter().map(rows).collect()
    }

    #[test]
    fn jobs_fill_a_call_up_to_its_rows_and_a_large_one_is_never_split() {
        let deliveries = [1, 2, 3, 9, 1].map(delivery).to_vec();
        assert_eq!(
            rows_of(&Plan::new(&iris(), deliveries, up_to(5))),
            [vec![1, 2], vec![3], vec![9], vec![1]]
        );
    }

    #[test]
    fn a_call_takes_no_further_job_after_its_bytes() {
        // A row has four floats.
        let limits = Limits { rows: 100, bytes: 40 };
        let plan = Plan::new(&iris(), [1, 1, 1, 9, 2, 1].map(delivery).to_vec(), limits);
        assert_eq!(rows_of(&plan), [vec![1, 1, 1], vec![9], vec![2, 1]]);
    }

    #[test]
    fn a_job_that_saw_a_crash_or_has_a_time_limit_is_called_alone() {
        let mut deliveries = [1, 2, 3, 4].map(delivery).to_vec();
        deliveries[0].attempt.lost = 1;
        deliveries[2].attempt.time_left = Some(Duration::from_secs(1));
        deliveries[3].attempt.broken = 1;
        assert_eq!(
            rows_of(&Plan::new(&iris(), deliveries, up_to(100))),
            [vec![1], vec![3], vec![4], vec![2]]
        );
    }

    #[test]
    fn input_that_does_not_fit_the_model_spoils_no_other_job() {
        let mut deliveries = [1, 1].map(delivery).to_vec();
        deliveries[0].input = "[[1,2,3]]".to_owned();
        let plan = Plan::new(&iris(), deliveries, up_to(100));
        assert_eq!((plan.unfit.len(), rows_of(&plan)), (1, vec![vec![1]]));
        assert_eq!(plan.unfit[0].1.pointer, "/data/0");
    }

    #[test]
    fn each_job_knows_its_first_row_and_bisection_keeps_every_job() {
        let plan = Plan::new(&iris(), [2, 1, 3].map(delivery).to_vec(), up_to(100));
        let batch = plan.batches[0].clone();
        assert_eq!(batch.split().map(|(_, from)| from).collect::<Vec<_>>(), [0, 2, 3]);
        let (first, second) = batch.bisect();
        assert_eq!((first.items.len(), second.unwrap().items.len()), (2, 1));
        assert!(first.bisect().1.unwrap().bisect().1.is_none());
    }
}
