//! Turns arrivals into requests without ever waiting for an answer, and keeps the number of requests under way bounded.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::api::Api;
use crate::failure::{Failure, FailureKind};
use crate::jobs::{Job, Jobs};
use crate::pacer::Arrival;
use crate::recorder::{Operation, Recorder};
use crate::stop::Stop;

/// The longest pause that a refusal can ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The pause after a refusal that asks for none.
const USUAL_PAUSE: Duration = Duration::from_millis(100);

/// A cheap handle to everything that a request needs.
#[derive(Clone, Debug)]
pub(crate) struct Traffic(Arc<Parts>);

/// What [`Traffic`] is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) api: Api,
    pub(crate) recorder: Recorder,
    pub(crate) jobs: Jobs,
    /// The body of every submission.
    pub(crate) body: Bytes,
    /// One permit for each request that may be under way.
    pub(crate) outstanding: Arc<Semaphore>,
    /// How many permits there are.
    pub(crate) max_outstanding: u32,
    /// Ends the closed loop.
    pub(crate) stop: Stop,
    /// How long one job of the closed loop may be refused.
    pub(crate) patience: Duration,
}

enum Request {
    Submit,
    Get(Arc<str>),
    Health,
}

impl Traffic {
    /// Requests made of `parts`.
    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// Sends what `arrival` asks for in a task of its own, or counts it as dropped. Never waits.
    pub(crate) fn admit(&self, arrival: Arrival, phase: usize) {
        let parts = &self.0;
        // There is nothing to read before the first job was accepted, so such an arrival is not intended either.
        let Some(request) = parts.request(arrival.operation) else { return };
        parts.recorder.intend(arrival.operation, phase);
        let Ok(place) = Arc::clone(&parts.outstanding).try_acquire_owned() else {
            let dropped = Err(FailureKind::Dropped.into());
            return parts.recorder.settle(arrival.operation, phase, Duration::ZERO, dropped);
        };
        let parts = Arc::clone(parts);
        tokio::spawn(async move {
            parts.perform(request, arrival, phase).await;
            drop(place);
        });
    }

    /// Submits one job of the closed loop, and again for as long as the server refuses for the moment and
    /// patience lasts.
    pub(crate) async fn submit_until_accepted(&self, seat: OwnedSemaphorePermit, phase: usize) {
        let Ok(_place) = self.0.outstanding.acquire().await else { return };
        let mut seat = Some(seat);
        let patient_until = Instant::now() + self.0.patience;
        while !self.0.stop.is_raised() && Instant::now() < patient_until {
            let intended = Instant::now();
            self.0.recorder.intend(Operation::Submit, phase);
            match self.0.submit(intended, phase, &mut seat).await {
                Err(refusal) if refusal.is_refusal() => tokio::time::sleep(pause(refusal)).await,
                _ => return,
            }
        }
    }

    /// Returns once every request has its outcome.
    pub(crate) async fn quiet(&self) {
        let _ = self.0.outstanding.acquire_many(self.0.max_outstanding).await;
    }
}

impl Parts {
    fn request(&self, operation: Operation) -> Option<Request> {
        match operation {
            Operation::Submit => Some(Request::Submit),
            Operation::Health => Some(Request::Health),
            Operation::Get | Operation::Follow => self.jobs.any_recent().map(Request::Get),
        }
    }

    async fn perform(&self, request: Request, arrival: Arrival, phase: usize) {
        let Arrival { intended, operation } = arrival;
        self.recorder.lag(intended.elapsed());
        let outcome = match request {
            Request::Submit => {
                // The submission settles itself; only the closed loop looks at its failure.
                let _ = self.submit(intended, phase, &mut None).await;
                return;
            }
            Request::Get(id) => self.api.job(&id, None).await.map(|_| ()),
            Request::Health => self.api.health().await,
        };
        self.recorder.settle(operation, phase, intended.elapsed(), outcome);
    }

    /// The job takes the `seat` with it; a failed submission leaves it.
    async fn submit(
        &self,
        intended: Instant,
        phase: usize,
        seat: &mut Option<OwnedSemaphorePermit>,
    ) -> Result<(), Failure> {
        let answer = self.api.submit(self.body.clone()).await;
        let outcome = answer.as_ref().map(|_| ()).map_err(|failure| *failure);
        self.recorder.settle(Operation::Submit, phase, intended.elapsed(), outcome);
        let id = answer?.into();
        self.recorder.accept();
        if !self.jobs.accept(Job { id, intended, seat: seat.take() }) {
            self.recorder.duplicate();
        }
        Ok(())
    }
}

/// How long a refusal asks to wait, within reason.
pub(crate) fn pause(refusal: Failure) -> Duration {
    refusal.retry_after.unwrap_or(USUAL_PAUSE).min(LONGEST_PAUSE)
}
