//! Groups claimed jobs into model calls. Jobs share a call if the shapes of their rows are equal. A job in quarantine, or with its
//! own time limit, is called alone.

use std::time::Duration;

use tepal_shared::{
    job::{Attempt, Delivery, input::ResultForm},
    model::{JobInput, Model, StoredMismatch},
    tensor::Batch,
};

use crate::backend::{ModelCall, OnlyJob};

/// A job with its input.
#[derive(Clone, Debug)]
pub struct Item {
    /// This attempt at the job.
    pub attempt: Attempt,
    /// Its tensors.
    pub input: JobInput,
    /// What its result contains.
    pub form: ResultForm,
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
    pub unfit: Vec<(Attempt, StoredMismatch)>,
}

/// A batch that may take further jobs. Its shape is that of its first job.
struct OpenBatch {
    items: Vec<Item>,
    rows: usize,
    bytes: usize,
}

impl Plan {
    /// Groups the jobs into calls within the limits. Inputs that do not fit the model are sorted out: the description may have
    /// changed since the proxy checked them.
    #[must_use]
    pub fn new(model: &Model, deliveries: Vec<Delivery>, limits: Limits) -> Self {
        let mut plan = Self::default();
        // One for each shape, so that jobs of many shapes in turn fill calls too.
        let mut open = Vec::new();
        for Delivery { attempt, input } in deliveries {
            match model.read_job(&input) {
                Err(error) => plan.unfit.push((attempt, error)),
                Ok((input, form)) if must_be_alone(&attempt) => {
                    plan.batches.push(MicroBatch { items: vec![Item { attempt, input, form }] });
                }
                Ok((input, form)) => {
                    plan.batches.extend(add(&mut open, Item { attempt, input, form }, limits));
                }
            }
        }
        plan.batches.extend(open.into_iter().map(|batch| MicroBatch { items: batch.items }));
        plan
    }
}

/// Adds a job to the open batch of its shape. Returns the batch that had no room for it.
fn add(open: &mut Vec<OpenBatch>, item: Item, limits: Limits) -> Option<MicroBatch> {
    let Some(number) = open.iter().position(|batch| batch.is_like(&item)) else {
        open.push(OpenBatch::of(item));
        return None;
    };
    let batch = &mut open[number];
    if batch.has_room(&item.input, limits) {
        batch.push(item);
        return None;
    }
    let full = open.remove(number);
    open.push(OpenBatch::of(item));
    Some(MicroBatch { items: full.items })
}

impl OpenBatch {
    fn of(item: Item) -> Self {
        Self { rows: item.input.rows, bytes: item.input.bytes(), items: vec![item] }
    }

    fn push(&mut self, item: Item) {
        self.rows += item.input.rows;
        self.bytes += item.input.bytes();
        self.items.push(item);
    }

    fn is_like(&self, item: &Item) -> bool {
        self.items.first().is_none_or(|first| first.input.is_alike(&item.input))
    }

    fn has_room(&self, more: &JobInput, limits: Limits) -> bool {
        self.rows + more.rows <= limits.rows && self.bytes < limits.bytes
    }
}

fn must_be_alone(attempt: &Attempt) -> bool {
    attempt.is_suspect() || attempt.time_left.is_some()
}

impl MicroBatch {
    /// Number of rows of all jobs.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.items.iter().map(|item| item.input.rows).sum()
    }

    /// The rows of all jobs as the model takes them.
    #[must_use]
    pub fn concatenate(&self, model: &Model) -> Batch {
        model.concatenate(self.items.iter().map(|item| &item.input))
    }

    /// A call of the model with the rows of all jobs.
    #[must_use]
    pub fn as_call(&self, model: &Model, time_limit: Duration) -> ModelCall {
        let id = self.items.first().map(|item| item.attempt.claim.job_id.to_string()).unwrap_or_default();
        let only_job = match self.items.as_slice() {
            [only] => Some(OnlyJob { traceparent: only.attempt.traceparent.clone() }),
            _ => None,
        };
        ModelCall { batch: self.concatenate(model), id, only_job, time_limit }
    }

    /// Each job with the number of its first row.
    pub fn split(&self) -> impl Iterator<Item = (&Item, usize)> {
        self.items.iter().scan(0, |next, item| {
            let from = *next;
            *next += item.input.rows;
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
        let fitting =
            self.split().take_while(|(item, from)| *from == 0 || from + item.input.rows <= max_rows);
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
    use std::path::Path;

    use tepal_shared::model::Axis;

    use super::*;
    use crate::testing::{delivery, delivery_of};

    fn iris() -> Model {
        Model::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../compose/models"), "iris").unwrap()
    }

    /// A limit of rows only.
    fn up_to(rows: usize) -> Limits {
        Limits { rows, bytes: usize::MAX }
    }

    fn rows_of(plan: &Plan) -> Vec<Vec<usize>> {
        let rows = |batch: &MicroBatch| batch.items.iter().map(|item| item.input.rows).collect();
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
        deliveries[0].input = delivery_of(&[1.0; 3]).input;
        let plan = Plan::new(&iris(), deliveries, up_to(100));
        assert_eq!((plan.unfit.len(), rows_of(&plan)), (1, vec![vec![1]]));
        let reason = plan.unfit[0].1.to_string();
        assert_eq!(reason, "`input` has the shape [1, 3], but the model takes [-1, 4]");
    }

    #[test]
    fn rows_and_tensors_share_a_call_and_keep_the_form_of_their_results() {
        let form = ResultForm::Outputs(vec![iris().output.name]);
        let tensors = Delivery { input: form.with(delivery(1).input), ..delivery(1) };
        let plan = Plan::new(&iris(), vec![delivery(2), tensors], up_to(100));
        assert_eq!(rows_of(&plan), [[2, 1]]);
        let forms: Vec<_> = plan.batches[0].items.iter().map(|item| &item.form).collect();
        assert_eq!(forms, [&ResultForm::Prediction, &form]);
    }

    /// Deliveries of one row each, as long as the model's variable axis is said to be.
    fn texts(lengths: &[usize]) -> (Model, Vec<Delivery>) {
        let mut model = iris();
        model.inputs[0].shape = [Axis::Variable].into_iter().collect();
        model.inputs[0].features.clear();
        (model, lengths.iter().map(|length| delivery_of(&vec![1.0; *length])).collect())
    }

    fn lengths_of(plan: &Plan) -> Vec<Vec<usize>> {
        let length = |item: &Item| item.input.tensors[0].shape[1];
        plan.batches.iter().map(|batch| batch.items.iter().map(length).collect()).collect()
    }

    #[test]
    fn only_jobs_of_one_shape_share_a_call_and_mixed_shapes_fill_calls() {
        let (model, deliveries) = texts(&[3, 5, 3, 7, 5, 3, 3, 5]);
        let plan = Plan::new(&model, deliveries, up_to(3));
        assert_eq!(lengths_of(&plan), [vec![3, 3, 3], vec![5, 5, 5], vec![7], vec![3]]);
        let batch = plan.batches[1].concatenate(&model);
        assert_eq!((batch.rows, &batch.inputs[0].shape[..]), (3, &[3, 5][..]));
    }

    #[test]
    fn each_shape_has_the_bytes_of_a_call() {
        let (model, deliveries) = texts(&[3, 5, 3, 5, 3, 5]);
        // Two jobs of five floats are enough, and so are three of three.
        let plan = Plan::new(&model, deliveries, Limits { rows: 100, bytes: 30 });
        assert_eq!(lengths_of(&plan), [vec![5, 5], vec![3, 3, 3], vec![5]]);
    }

    #[test]
    fn each_job_of_a_model_without_a_batch_axis_has_a_call_of_its_own() {
        let (mut model, mut deliveries) = texts(&[3, 3]);
        model.max_batch = 0;
        let input = model.stored(&model.read_data(&serde_json::json!([1, 2, 3])).unwrap());
        deliveries.iter_mut().for_each(|delivery| delivery.input.clone_from(&input));
        let plan = Plan::new(&model, deliveries, up_to(model.most_rows_of_call(100)));
        assert_eq!(plan.batches.len(), 2);
        assert_eq!(plan.batches[0].concatenate(&model).inputs[0].shape, [3]);
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
