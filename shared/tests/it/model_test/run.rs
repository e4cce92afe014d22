//! Takes steps in Redis and in the model.

use std::collections::BTreeMap;

use proptest::{prelude::*, test_runner::TestCaseError};
use tepal_shared::{
    job::{Claim, Idempotency, JobId, JobStatus, LARGE_BYTES, NewJob, Stream, owner::View},
    queue::{
        intake::{Origin, Requeued, Submitted},
        work::{Granted, Settlement, TakeRequest},
    },
};

use crate::{
    model::{Grant, Model, Taken, Way},
    queue::{ANYONE, Queue, all, all_streams, claims, ended, new_job, streams_of},
    snapshot::Snapshot,
};

use super::{CONSUMERS, PAYERS, Step, WORKERS, charge_of};

/// The outcome of a comparison.
pub(super) type Checked = Result<(), TestCaseError>;

/// A queue in Redis, and its model.
pub(super) struct Run {
    pub(super) queue: Queue,
    pub(super) model: Model,
}

impl Run {
    /// The groups of all streams exist, as after the first take of a worker.
    pub(super) async fn make_groups(&self) {
        let request = TakeRequest { streams: &all_streams(), due_from: None, ..all("w-1") };
        self.queue.store.work.take(&request).await.unwrap();
    }

    /// Takes the step in Redis and in the model, and compares what they return.
    pub(super) async fn step(&mut self, step: &Step) -> Checked {
        match step {
            Step::Submit { stream, key, bytes, payer } => self.submit(*stream, *key, *bytes, *payer).await,
            Step::Take { consumer, models, turned, limit, max_bytes } => {
                let mut streams = streams_of(models);
                if *turned {
                    streams.reverse();
                }
                self.take(CONSUMERS[*consumer], &streams, *limit, *max_bytes).await
            }
            Step::Start { consumer, models, max_bytes } => {
                self.start(*consumer, &streams_of(models), *max_bytes).await
            }
            Step::Settle { grant: number, .. } | Step::Renew(number) => {
                match number.checked_rem(self.model.grants.len()) {
                    Some(index) => self.step_of_grant(step, self.model.grants[index]).await,
                    None => Ok(()),
                }
            }
            Step::SubmitAgain(number)
            | Step::Cancel(number)
            | Step::Requeue(number)
            | Step::LoseInput(number)
            | Step::MakeDue(number)
            | Step::Overrun(number)
            | Step::Expire(number) => match number.checked_rem(self.model.jobs.len()) {
                Some(index) => self.step_of_job(step, index).await,
                None => Ok(()),
            },
            Step::Read { .. } | Step::Age(_) | Step::DeleteConsumer(_) => self.step_of_consumer(step).await,
            Step::Uncharge | Step::Recount(_) | Step::Sweep => self.upkeep(step).await,
        }
    }

    async fn submit(&mut self, stream: Stream, key: Option<(u8, u8)>, bytes: usize, payer: usize) -> Checked {
        let idempotency = key
            .map(|(key, body)| Idempotency { key_hash: format!("{key}a"), fingerprint: format!("{body}b") });
        let (id, input) = (JobId::new(0), "1".repeat(bytes).into());
        let charge = Some(charge_of(payer));
        let Stream { model, priority } = stream;
        let job = NewJob { model, input, priority, idempotency, charge, ..new_job() };
        let expected = self.model.submit(id, stream, bytes, PAYERS[payer], key);
        let submitted = match self.queue.store.intake.submit(id, job).await.unwrap() {
            Submitted::OverQuota { .. } => Submitted::OverQuota { room_in: None },
            other => other,
        };
        prop_assert_eq!(submitted, expected);
        Ok(())
    }

    async fn take(
        &mut self,
        consumer: &'static str,
        streams: &[Stream],
        limit: usize,
        max_bytes: usize,
    ) -> Checked {
        let from_start = vec![String::new(); streams.len()];
        let request = TakeRequest { streams, limit, max_bytes, due_from: Some(&from_start), ..all(consumer) };
        let granted = self.queue.store.work.take(&request).await.unwrap();
        prop_assert_eq!(taken(&granted), self.model.take(consumer, streams, limit, max_bytes));
        prop_assert!(self.are_of_their_streams(&granted), "{:?}", granted);
        Ok(())
    }

    async fn start(&mut self, number: usize, streams: &[Stream], max_bytes: usize) -> Checked {
        let (consumer, inbox) = (CONSUMERS[number], CONSUMERS[WORKERS + number]);
        let granted = self.queue.store.work.start(0, consumer, streams, max_bytes).await.unwrap();
        prop_assert_eq!(taken(&granted), self.model.start(consumer, inbox, streams, max_bytes));
        prop_assert!(self.are_of_their_streams(&granted), "{:?}", granted);
        Ok(())
    }

    /// Whether a call named the right stream of each job that it claimed or failed.
    fn are_of_their_streams(&self, granted: &Granted) -> bool {
        let stream_of = |id| self.model.jobs.iter().find(|job| job.id == id).map(|job| job.stream);
        let claimed = claims(granted).into_iter().map(|claim| (claim.job_id, claim.stream.model));
        let ended = granted.ended.iter().map(|job| (job.job_id, job.model));
        claims(granted).iter().all(|claim| stream_of(claim.job_id) == Some(claim.stream))
            && claimed
                .chain(ended)
                .all(|(id, model)| stream_of(id).is_some_and(|stream| stream.model == model))
    }

    async fn step_of_grant(&mut self, step: &Step, grant: Grant) -> Checked {
        if let Step::Settle { way, .. } = step {
            return self.settle(grant, *way).await;
        }
        let job = &self.model.jobs[grant.job];
        let held = [Claim { job_id: job.id, token: grant.token, stream: job.stream }];
        let gone = self.queue.store.work.renew(0, grant.consumer, &held).await.unwrap();
        prop_assert_eq!(gone.first().map(|(_, fence)| *fence), self.model.renew(grant));
        Ok(())
    }

    async fn step_of_job(&mut self, step: &Step, index: usize) -> Checked {
        let (store, id) = (self.queue.store.clone(), self.model.jobs[index].id);
        match step {
            Step::SubmitAgain(_) => {
                let expected = self.model.submit(id, all_streams()[0], 1, PAYERS[0], None);
                prop_assert_eq!(store.intake.submit(id, new_job()).await.unwrap(), expected);
            }
            Step::Cancel(_) => {
                let cancelled = store.intake.cancel(id, View::All).await.unwrap();
                prop_assert_eq!(cancelled, self.model.cancel(index));
            }
            Step::Requeue(_) => {
                let (new, charge) = (JobId::new(0), charge_of(0));
                let origin = Origin { charge: Some(&charge), ..ANYONE };
                let requeued = match store.intake.requeue(id, new, origin).await.unwrap() {
                    Requeued::OverQuota { .. } => Requeued::OverQuota { room_in: None },
                    other => other,
                };
                prop_assert_eq!(requeued, self.model.requeue(index, new, PAYERS[0]));
            }
            Step::LoseInput(_) => {
                self.model.lose_input(index);
                self.queue.redis::<u64>(&["DEL", &store.queue.keys().input(id)]).await;
            }
            Step::MakeDue(_) => {
                // Here the charge changes its place; time does not do that, and a recount could not know.
                let is_recounting =
                    self.queue.redis::<u64>(&["EXISTS", &store.queue.keys().quota(0)[2]]).await == 1;
                if !is_recounting && self.model.make_due(index) {
                    self.queue.make_due(id).await;
                }
            }
            Step::Overrun(_) => {
                if self.model.overrun(index) {
                    self.queue.set_field(id, "run_deadline", "1").await;
                }
            }
            Step::Expire(_) => {
                let expired = store.intake.expire(id).await.unwrap();
                prop_assert_eq!(expired, self.model.expire(index));
            }
            other => panic!("{other:?} is not a step of a job"),
        }
        Ok(())
    }

    async fn step_of_consumer(&mut self, step: &Step) -> Checked {
        match step {
            Step::Read { consumer, stream } => {
                self.model.read(CONSUMERS[WORKERS + consumer], *stream);
                self.queue.read(CONSUMERS[*consumer], *stream).await;
            }
            Step::Age(consumer) => {
                self.model.age(CONSUMERS[*consumer]);
                self.queue.age(CONSUMERS[*consumer]).await;
            }
            Step::DeleteConsumer(consumer) => {
                self.model.delete_consumer(CONSUMERS[*consumer]);
                for stream in all_streams() {
                    let stream = self.queue.store.queue.keys().stream(0, stream);
                    let words = ["XGROUP", "DELCONSUMER", &stream, "workers", CONSUMERS[*consumer]];
                    self.queue.redis::<u64>(&words).await;
                }
            }
            other => panic!("{other:?} is not a step of a consumer"),
        }
        Ok(())
    }

    async fn upkeep(&mut self, step: &Step) -> Checked {
        let work = &self.queue.store.work;
        match step {
            Step::Uncharge => {
                prop_assert_eq!(work.uncharge(0, 1_000).await.unwrap(), self.model.uncharge());
            }
            Step::Recount(limit) => {
                prop_assert_eq!(work.recount(0, *limit).await.unwrap().dropped, 0);
            }
            _ => {
                let swept = work.sweep(0, None, 1_000).await.unwrap();
                prop_assert_eq!((swept.repaired, swept.forgotten), (self.model.sweep(), 0));
            }
        }
        Ok(())
    }

    async fn settle(&mut self, grant: Grant, way: Way) -> Checked {
        let job = &self.model.jobs[grant.job];
        let claim = Claim { job_id: job.id, token: grant.token, stream: job.stream };
        let settlement = match way {
            Way::Complete => Settlement::Complete(result_of(job.id, grant.token, job.result_bytes())),
            Way::Fail => crate::queue::fail(),
            Way::RetryNow => Settlement::Retry(std::time::Duration::ZERO),
            Way::RetryLater => Settlement::Retry(self.queue.store.queue.policy().lease),
            Way::Release => Settlement::Release,
        };
        prop_assert_eq!(self.queue.settle(&claim, settlement).await, self.model.settle(grant, way));
        Ok(())
    }

    /// Everything in Redis is as in the model.
    pub(super) async fn compare(&self, after: &Step) -> Checked {
        let ids: Vec<_> = self.model.jobs.iter().map(|job| job.id).collect();
        let seen = Snapshot::read(&self.queue, &ids).await;
        for job in &self.model.jobs {
            prop_assert_eq!(seen.state(job.id), job.state(), "{} after {:?}", job.id, after);
            let result = job.completed_by.map(|token| result_of(job.id, token, job.result_bytes()));
            let large = result.as_ref().filter(|result| result.len() > LARGE_BYTES);
            let size = large.map(|large| format!("@{}", large.len()));
            prop_assert_eq!(seen.field(job.id, "result"), size.as_deref().or(result.as_deref()));
            prop_assert_eq!(seen.field(job.id, "large_result"), large.map(String::as_str));
            prop_assert_eq!(seen.kept_input(job.id).map(str::len), job.kept_bytes());
        }
        let outstanding = self.model.jobs.iter().filter(|job| !job.status.is_terminal()).count();
        prop_assert_eq!(seen.length(), outstanding as u64);
        let sums: BTreeMap<String, u64> =
            self.queue.redis(&["HGETALL", &self.queue.store.queue.keys().quota(0)[1]]).await;
        prop_assert_eq!(sums, self.model.sums(), "after {:?}", after);
        Ok(())
    }

    /// After the last fault, every job ends, and nothing is left over.
    pub(super) async fn finish(mut self) -> Checked {
        self.step(&Step::Sweep).await?;
        // Each round ends every available job. A lost job can be lost again at most once.
        for _ in 0..2 {
            for consumer in 0..CONSUMERS.len() {
                self.step(&Step::Age(consumer)).await?;
            }
            let first = self.model.grants.len();
            self.take(CONSUMERS[0], &all_streams(), 1_000, usize::MAX).await?;
            for grant in first..self.model.grants.len() {
                self.settle(self.model.grants[grant], Way::Complete).await?;
            }
        }
        self.compare(&Step::Sweep).await?;
        let ended = [JobStatus::Completed, JobStatus::Failed, JobStatus::Cancelled];
        prop_assert!(self.model.jobs.iter().all(|job| ended.contains(&job.status)), "{:?}", self.model.jobs);
        prop_assert_eq!(self.queue.outstanding().await, (0, 0));
        Ok(())
    }
}

/// A result of this size that names its job.
fn result_of(id: JobId, token: u64, bytes: usize) -> String {
    format!(r#"{:bytes$}"#, format!(r#"{{"job":"{id}","token":{token}}}"#))
}

fn taken(granted: &Granted) -> Taken {
    Taken {
        granted: claims(granted).iter().map(|claim| (claim.job_id, claim.token)).collect(),
        ended: ended(granted),
    }
}
