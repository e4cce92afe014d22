//! Jobs for unit tests.

use std::time::Duration;

use tepal_shared::{
    job::{Attempt, Claim, Delivery, JobId, Stream},
    tensor::{Batch, DataType, stored},
};

use crate::backend::ModelCall;

/// A call of a model with these rows.
pub(crate) fn call(batch: Batch) -> ModelCall {
    ModelCall::of_sample(batch, Duration::from_secs(60))
}

/// The first claim of a new job.
pub(crate) fn claim() -> Claim {
    let [_, stream, _] = Stream::all_of("iris".parse().unwrap());
    Claim { job_id: JobId::new(0), token: 1, stream }
}

/// The first attempt at a new job.
pub(crate) fn attempt() -> Attempt {
    Attempt {
        claim: claim(),
        released: 0,
        lost: 0,
        broken: 0,
        age: Duration::ZERO,
        time_left: None,
        request_id: None,
        traceparent: None,
    }
}

/// The first delivery of a new job with this many rows.
pub(crate) fn delivery(rows: usize) -> Delivery {
    let row = [5.1, 3.5, 1.4, 0.2];
    Delivery { attempt: attempt(), input: stored_rows(&vec![&row[..]; rows]) }
}

/// The first delivery of a new job with this row.
pub(crate) fn delivery_of(row: &[f32]) -> Delivery {
    Delivery { attempt: attempt(), input: stored_rows(&[row]) }
}

fn stored_rows(rows: &[&[f32]]) -> Vec<u8> {
    let data: Vec<u8> = rows.iter().copied().flatten().flat_map(|value| value.to_le_bytes()).collect();
    let mut stored = Vec::new();
    stored::append(&mut stored, DataType::Fp32, &[rows.len(), rows[0].len()], &data);
    stored
}
