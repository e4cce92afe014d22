//! Jobs for unit tests.

use std::time::Duration;

use tepal_shared::job::{Attempt, Claim, Delivery, JobId, Stream};

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
    let input = format!("{:?}", vec![[5.1, 3.5, 1.4, 0.2]; rows]);
    Delivery { attempt: attempt(), input }
}
