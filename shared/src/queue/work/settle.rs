//! Settles claims: ends or releases their jobs, many in one round trip, several results to a script call.

use std::{borrow::Borrow, time::Duration};

use redis::{Cmd, Value};

use crate::{
    job::Claim,
    queue::{
        error::StoreError,
        policy::Policy,
        scripts::{
            self, NamedScript,
            argument::{millis, seconds, stream_number},
        },
        work::{handle::Work, outcome::Settled},
    },
};

/// Largest number of results that one script call stores. The call takes well below a millisecond.
const MOST_RESULTS: usize = 32;

/// How an attempt settles its job.
#[derive(Clone, Debug)]
pub enum Settlement {
    /// Complete it with this result, JSON.
    Complete(String),
    /// Complete it with a result that is not JSON, in its stored form: tensors, see [`stored_outputs`](crate::tensor::stored_outputs), or
    /// bytes, see [`content`](crate::content).
    CompleteStored(Vec<u8>),
    /// Fail it.
    Fail {
        /// One word for programs.
        code: String,
        /// A sentence for the client.
        error: String,
    },
    /// Put it back, due after this pause, at most the lease.
    Retry(Duration),
    /// Put it back without using an attempt.
    Release,
    /// The same, and count that its model call broke off.
    Broken,
}

/// What one script call settles.
enum SettleCall<'a> {
    /// Jobs of one model and partition that are completed with these results.
    Complete(Vec<(Claim, &'a [u8])>),
    /// A job that is settled in another way.
    One(Claim, &'a Settlement),
}

impl Work {
    /// Ends or releases the jobs of several claims in one round trip to each primary. Returns one outcome for each, in order.
    ///
    /// # Errors
    /// When no primary answered. Repeating all of it is safe.
    pub async fn settle<S: Borrow<Settlement>>(
        &self,
        settlements: &[(Claim, S)],
    ) -> Result<Vec<Result<Settled, StoreError>>, StoreError> {
        let calls = SettleCall::all(settlements);
        let mut settled = Vec::with_capacity(settlements.len());
        for (call, outcome) in calls.iter().zip(self.make(&calls).await) {
            match (outcome, call.apart()) {
                // If Redis rejects one job, the other jobs of the call must be settled all the same.
                (Err(error), Some(calls)) if !error.is_retryable() => {
                    for outcome in self.make(&calls).await {
                        add(&mut settled, outcome, 1);
                    }
                }
                (outcome, _) => add(&mut settled, outcome, call.jobs()),
            }
        }
        let unanswered = |outcome: &Result<Settled, StoreError>| match outcome {
            Err(error @ (StoreError::Disconnected | StoreError::Ambiguous(_))) => Some(error.clone()),
            _ => None,
        };
        let failures: Option<Vec<_>> = settled.iter().map(unanswered).collect();
        failures.and_then(|failures| failures.into_iter().next()).map_or(Ok(settled), Err)
    }

    /// Makes all calls in one round trip to each primary.
    async fn make(&self, calls: &[SettleCall<'_>]) -> Vec<Result<Vec<Settled>, StoreError>> {
        let commands = calls.iter().map(|call| match call {
            SettleCall::Complete(jobs) => {
                let partition = jobs.first().map_or(0, |(claim, _)| claim.job_id.partition());
                (partition, self.complete_call(jobs))
            }
            SettleCall::One(claim, settlement) => {
                (claim.job_id.partition(), self.settle_call(*claim, settlement))
            }
        });
        let outcomes = self.queue.ask(commands.collect()).await;
        let outcomes = outcomes.into_iter().zip(calls);
        outcomes.map(|(outcome, call)| outcome.and_then(|value| call.parse(value))).collect()
    }

    fn complete_call(&self, jobs: &[(Claim, &[u8])]) -> Cmd {
        let mut keys = Vec::with_capacity(3 + jobs.len());
        if let Some((first, _)) = jobs.first() {
            keys.extend(self.queue.keys.streams(first.job_id.partition(), first.stream.model));
        }
        keys.extend(jobs.iter().map(|(claim, _)| self.queue.keys.job(claim.job_id)));
        let mut command = scripts::COMPLETE.call(&keys);
        command.arg(seconds(self.queue.policy.result_ttl));
        for (claim, result) in jobs {
            command.arg(claim.token).arg(stream_number(claim.stream.priority)).arg(*result);
        }
        command
    }

    fn settle_call(&self, claim: Claim, settlement: &Settlement) -> Cmd {
        let id = claim.job_id;
        let keys = [self.queue.keys.job(id), self.queue.keys.stream(id.partition(), claim.stream)];
        let mut command = settlement.script().call(&keys);
        command.arg(claim.token).arg(id.to_string());
        let lease_ms = millis(self.queue.policy.lease);
        match settlement {
            Settlement::Fail { code, error } => {
                let Policy { result_ttl, failed_input_ttl, max_dead_letters, .. } = &self.queue.policy;
                command.arg(code).arg(error).arg(seconds(*result_ttl)).arg(*max_dead_letters);
                command.arg(seconds(*failed_input_ttl))
            }
            Settlement::Retry(delay) => command.arg(millis(*delay)).arg(lease_ms),
            Settlement::Broken => command.arg(lease_ms).arg(1),
            Settlement::Release | Settlement::Complete(_) | Settlement::CompleteStored(_) => {
                command.arg(lease_ms).arg(0)
            }
        };
        command
    }
}

/// Adds the outcome of a call that settled so many jobs.
fn add(
    settled: &mut Vec<Result<Settled, StoreError>>,
    outcome: Result<Vec<Settled>, StoreError>,
    jobs: usize,
) {
    match outcome {
        Ok(outcomes) => settled.extend(outcomes.into_iter().map(Ok)),
        Err(error) => settled.extend((0..jobs).map(|_| Err(error.clone()))),
    }
}

impl<'a> SettleCall<'a> {
    fn all(settlements: &'a [(Claim, impl Borrow<Settlement>)]) -> Vec<Self> {
        let mut calls = Vec::new();
        for (claim, settlement) in settlements {
            let settlement = settlement.borrow();
            match (settlement.result(), calls.last_mut()) {
                (Some(result), Some(Self::Complete(jobs))) if has_room(jobs, *claim) => {
                    jobs.push((*claim, result));
                }
                (Some(result), _) => calls.push(Self::Complete(vec![(*claim, result)])),
                (None, _) => calls.push(Self::One(*claim, settlement)),
            }
        }
        calls
    }

    fn jobs(&self) -> usize {
        match self {
            Self::Complete(jobs) => jobs.len(),
            Self::One(..) => 1,
        }
    }

    /// A call for each of its jobs, if there are several.
    fn apart(&self) -> Option<Vec<Self>> {
        match self {
            Self::Complete(jobs) if jobs.len() > 1 => {
                Some(jobs.iter().map(|job| Self::Complete(vec![*job])).collect())
            }
            _ => None,
        }
    }

    fn parse(&self, value: Value) -> Result<Vec<Settled>, StoreError> {
        match self {
            Self::Complete(jobs) => Settled::parse_completed(value, jobs.len()),
            Self::One(_, settlement) => {
                Settled::parse(settlement.script(), value).map(|settled| vec![settled])
            }
        }
    }
}

fn has_room(jobs: &[(Claim, &[u8])], claim: Claim) -> bool {
    let streams_of = |claim: &Claim| (claim.job_id.partition(), claim.stream.model);
    jobs.len() < MOST_RESULTS
        && jobs.first().is_some_and(|(first, _)| streams_of(first) == streams_of(&claim))
}

impl Settlement {
    /// The result as it is stored, if the job completes.
    fn result(&self) -> Option<&[u8]> {
        match self {
            Self::Complete(json) => Some(json.as_bytes()),
            Self::CompleteStored(result) => Some(result),
            Self::Fail { .. } | Self::Retry(_) | Self::Release | Self::Broken => None,
        }
    }

    fn script(&self) -> &'static NamedScript {
        match self {
            Self::Complete(_) | Self::CompleteStored(_) => &scripts::COMPLETE,
            Self::Fail { .. } => &scripts::FAIL,
            Self::Retry(_) => &scripts::RETRY,
            Self::Release | Self::Broken => &scripts::RELEASE,
        }
    }
}
