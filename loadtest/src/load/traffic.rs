//! Sends requests without waiting for answers, and bounds the number of requests in flight.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::pacer::Arrival;
use crate::http::api::Api;
use crate::http::failure::{Failure, FailureKind};
use crate::jobs::table::{Job, Jobs};
use crate::measure::recorder::Recorder;
use crate::measure::totals::Operation;
use crate::stop::Stop;

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
    /// One permit for each request that may be in flight.
    pub(crate) outstanding: Arc<Semaphore>,
    /// The number of these permits.
    pub(crate) max_outstanding: u32,
    /// Ends the closed loop.
    pub(crate) stop: Stop,
    /// How long the closed loop repeats a submission that the server refuses.
    pub(crate) retry_limit: Duration,
}

enum Request {
    Submit,
    Get(Arc<str>),
    Health,
}

impl Traffic {
    /// Traffic made of `parts`.
    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// Sends the request of `arrival` in its own task, or counts it as dropped. Never waits.
    pub(crate) fn dispatch(&self, arrival: Arrival, phase: usize) {
        let parts = &self.0;
        // Before the first job is accepted there is no job to read, so this arrival does not count as intended.
        let Some(request) = parts.request(arrival.operation) else { return };
        parts.recorder.intend(arrival.operation, phase);
        let Ok(permit) = Arc::clone(&parts.outstanding).try_acquire_owned() else {
            let dropped = Err(FailureKind::Dropped.into());
            return parts.recorder.settle(arrival.operation, phase, Duration::ZERO, dropped);
        };
        let parts = Arc::clone(parts);
        tokio::spawn(async move {
            parts.send(request, arrival, phase).await;
            drop(permit);
        });
    }

    /// Submits one job of the closed loop. Repeats the submission while the server refuses it with 429 or 503.
    pub(crate) async fn submit_until_accepted(&self, permit: OwnedSemaphorePermit, phase: usize) {
        let Ok(_outstanding) = self.0.outstanding.acquire().await else { return };
        let mut permit = Some(permit);
        let deadline = Instant::now() + self.0.retry_limit;
        while !self.0.stop.is_raised() && Instant::now() < deadline {
            let intended = Instant::now();
            self.0.recorder.intend(Operation::Submit, phase);
            match self.0.submit(intended, phase, &mut permit).await {
                Err(refusal) if refusal.is_refusal() => tokio::time::sleep(refusal.pause()).await,
                _ => return,
            }
        }
    }

    /// Waits until every request has its outcome.
    pub(crate) async fn settled(&self) {
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

    async fn send(&self, request: Request, arrival: Arrival, phase: usize) {
        let Arrival { intended, operation } = arrival;
        self.recorder.lag(intended.elapsed());
        let outcome = match request {
            Request::Submit => {
                // `submit` records its outcome itself; only the closed loop needs its failure.
                let _ = self.submit(intended, phase, &mut None).await;
                return;
            }
            Request::Get(id) => self.api.job(&id, None).await.map(|_| ()),
            Request::Health => self.api.health().await,
        };
        self.recorder.settle(operation, phase, intended.elapsed(), outcome);
    }

    /// An accepted job takes the `permit`. A failed submission leaves it.
    async fn submit(
        &self,
        intended: Instant,
        phase: usize,
        permit: &mut Option<OwnedSemaphorePermit>,
    ) -> Result<(), Failure> {
        let answer = self.api.submit(self.body.clone()).await;
        let outcome = answer.as_ref().map(|_| ()).map_err(|failure| *failure);
        self.recorder.settle(Operation::Submit, phase, intended.elapsed(), outcome);
        let id = answer?.into();
        self.recorder.accept();
        if !self.jobs.accept(Job { id, intended, permit: permit.take() }) {
            self.recorder.duplicate();
        }
        Ok(())
    }
}
