//! Random sequences of everything that clients, workers, operators and time do to a queue, against a real Redis and
//! against the model. A sequence that goes wrong is reduced to a short one.

use std::collections::BTreeMap;

use proptest::{
    prelude::*,
    test_runner::{Config, TestCaseError, TestRunner},
};
use tepal_shared::{
    job::{Charge, Claim, Idempotency, JobId, JobStatus, LARGE_BYTES, NewJob, Priority, owner::View},
    queue::{
        scripts::{Requeued, Submitted},
        store::{Origin, Settlement, TakeRequest},
    },
};

use tokio::runtime::Runtime;

use crate::{
    altered::{Alteration, Altered},
    model::{Grant, MAX_LOST, MOST_BYTES, Model, Taken, WAITING, Way},
    queue::{ANYONE, Queue, all, claims, new_job},
    snapshot::Snapshot,
};

const CASES: u32 = 96;
const LONGEST: usize = 60;
const WORKERS: usize = 3;
/// The workers' own names, their inboxes in the same order, and the consumer of what nobody runs.
const CONSUMERS: [&str; 2 * WORKERS + 1] =
    ["w-1", "w-2", "w-3", "w-1:inbox", "w-2:inbox", "w-3:inbox", WAITING];

/// A step. A number names one of what there is (modulo how many); a step without its subject is left out.
#[derive(Clone, Debug)]
enum Step {
    Submit {
        priority: Priority,
        key: Option<(u8, u8)>,
        bytes: usize,
        payer: usize,
    },
    SubmitAgain(usize),
    Take {
        consumer: usize,
        turned: bool,
        limit: usize,
        max_bytes: usize,
    },
    /// A blocking read that is not started yet.
    Read {
        consumer: usize,
        priority: Priority,
    },
    Start {
        consumer: usize,
        max_bytes: usize,
    },
    /// By whoever was ever granted an attempt, zombies included.
    Settle {
        grant: usize,
        way: Way,
    },
    Renew(usize),
    Cancel(usize),
    Requeue(usize),
    /// The input that was kept at a job's end expires.
    LoseInput(usize),
    /// So does what its payer was charged for.
    MakeDue(usize),
    Uncharge,
    /// Counts so many charges.
    Recount(usize),
    /// The job's own run time passes.
    Overrun(usize),
    Expire(usize),
    /// A lease's length passes for what a consumer owns: its worker was killed, or what waits is due.
    Age(usize),
    DeleteConsumer(usize),
    Sweep,
}

fn priority() -> impl Strategy<Value = Priority> {
    prop::sample::select(Priority::ALL.to_vec())
}

/// Length of a job's input.
fn bytes() -> impl Strategy<Value = usize> {
    prop::sample::select(vec![1, 1, 10, 100, 9_000])
}

/// Who pay for the jobs; the first one for those that run again.
const PAYERS: [&str; 2] = ["a:x", "a:y"];

fn charge_of(payer: usize) -> Charge {
    Charge { payer: PAYERS[payer].into(), most_bytes: MOST_BYTES }
}

fn max_bytes() -> impl Strategy<Value = usize> {
    prop::sample::select(vec![usize::MAX, usize::MAX, 1, 20, 150])
}

fn step() -> impl Strategy<Value = Step> {
    let ways = [Way::Complete, Way::Complete, Way::Fail, Way::RetryNow, Way::RetryLater, Way::Release];
    let subject = 0..1_000_usize;
    let consumer = 0..WORKERS;
    prop_oneof![
        6 => (priority(), prop::option::weighted(0.3, (0..3_u8, 0..2_u8)), bytes(), 0..PAYERS.len())
            .prop_map(|(priority, key, bytes, payer)| Step::Submit { priority, key, bytes, payer }),
        1 => subject.clone().prop_map(Step::SubmitAgain),
        6 => (consumer.clone(), any::<bool>(), 1..5_usize, max_bytes()).prop_map(
            |(consumer, turned, limit, max_bytes)| Step::Take { consumer, turned, limit, max_bytes }
        ),
        2 => (consumer.clone(), priority())
            .prop_map(|(consumer, priority)| Step::Read { consumer, priority }),
        2 => (consumer, max_bytes()).prop_map(|(consumer, max_bytes)| Step::Start { consumer, max_bytes }),
        8 => (subject.clone(), prop::sample::select(ways.to_vec()))
            .prop_map(|(grant, way)| Step::Settle { grant, way }),
        2 => subject.clone().prop_map(Step::Renew),
        1 => subject.clone().prop_map(Step::Cancel),
        2 => subject.clone().prop_map(Step::Requeue),
        1 => subject.clone().prop_map(Step::LoseInput),
        1 => subject.clone().prop_map(Step::MakeDue),
        1 => Just(Step::Uncharge),
        2 => (1..4_usize).prop_map(Step::Recount),
        1 => subject.clone().prop_map(Step::Overrun),
        1 => subject.prop_map(Step::Expire),
        4 => (0..CONSUMERS.len()).prop_map(Step::Age),
        1 => (0..CONSUMERS.len()).prop_map(Step::DeleteConsumer),
        2 => Just(Step::Sweep),
    ]
}

#[test]
fn any_sequence_does_to_redis_what_it_does_to_the_model() {
    let runtime = runtime();
    let queue = runtime.block_on(Queue::start());
    if let Err(failure) = check(&runtime, &queue, CASES, 400) {
        panic!("{failure}");
    }
}

#[test]
fn the_model_notices_broken_scripts() {
    let runtime = runtime();
    let queue = runtime.block_on(Queue::start());
    for (file, cut, put) in [
        ("hold.lua", "status == 'processing' and attempt == token", "status == 'processing'"),
        ("grant.lua", "lost >= grants.max_lost", "false"),
        ("end.lua", "  redis.call('XDEL', stream, unpack(entries))\n", ""),
        ("sweep.lua", "#redis.call('XPENDING', stream, GROUP, entry, entry, 1) == 1", "true"),
        ("submit.lua", "of == fingerprint and ", ""),
        ("submit.lua", "        recharge(job, payer, 0, '', bytes, NOT_DUE)\n", ""),
        ("complete.lua", "size > LARGE and size or 0", "0"),
        ("quota.lua", "if recounted ~= 0 then", "if false then"),
        ("end.lua", "input, 'EX', job.input_ttl_s", "'', 'EX', job.input_ttl_s"),
        ("requeue.lua", "old[3] or redis.call('GET', KEYS[7])", "''"),
        ("grant.lua", "if grants.bytes >= grants.max_bytes then", "if false then"),
        ("take.lua", "'SETID', stream, GROUP, last", "'SETID', stream, GROUP, '0'"),
    ] {
        let alteration = Alteration { file, cut, put };
        let altered = runtime.block_on(Altered::new(&queue, Some(alteration)));
        assert!(check(&runtime, &altered.queue, 10 * CASES, 0).is_err(), "unnoticed: {alteration:?}");
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Runs that many sequences, each in a queue of its own. One that fails is reduced in that many steps.
fn check(runtime: &Runtime, queue: &Queue, cases: u32, max_shrink_iters: u32) -> Result<(), String> {
    let queue = queue.with_policy(|policy| policy.max_lost = MAX_LOST as u32);
    let config = Config { cases, max_shrink_iters, failure_persistence: None, ..Config::default() };
    let steps = prop::collection::vec(step(), 1..LONGEST);
    let checked = TestRunner::new(config).run(&steps, |steps| {
        runtime.block_on(async {
            let mut run = Run { queue: queue.another(), model: Model::default() };
            run.queue.take("w-1", 1).await; // Makes the groups.
            for step in steps {
                run.step(&step).await?;
                run.compare(&step).await?;
            }
            run.finish().await
        })
    });
    checked.map_err(|failure| failure.to_string())
}

type Checked = Result<(), TestCaseError>;

/// A queue and what it should be.
struct Run {
    queue: Queue,
    model: Model,
}

impl Run {
    async fn step(&mut self, step: &Step) -> Checked {
        let (store, jobs) = (self.queue.store.clone(), self.model.jobs.len());
        let job = |number: &usize| number.checked_rem(jobs);
        let grants = self.model.grants.len();
        match step {
            Step::Submit { priority, key, bytes, payer } => {
                let idempotency = key.map(|(key, body)| Idempotency {
                    key_hash: format!("{key}a"),
                    fingerprint: format!("{body}b"),
                });
                let (id, input) = (JobId::new(0), "1".repeat(*bytes));
                let charge = Some(charge_of(*payer));
                let job = NewJob { input, priority: *priority, idempotency, charge, ..new_job() };
                let expected = self.model.submit(id, *priority, *bytes, PAYERS[*payer], *key);
                let submitted = match store.submit(id, job).await.unwrap() {
                    Submitted::OverQuota { .. } => Submitted::OverQuota { room_in: None },
                    other => other,
                };
                prop_assert_eq!(submitted, expected);
            }
            Step::SubmitAgain(number) => {
                let Some(index) = job(number) else { return Ok(()) };
                let id = self.model.jobs[index].id;
                let expected = self.model.submit(id, Priority::High, 1, PAYERS[0], None);
                prop_assert_eq!(store.submit(id, new_job()).await.unwrap(), expected);
            }
            Step::Take { consumer, turned, limit, max_bytes } => {
                let mut order = Priority::ALL;
                if *turned {
                    order.reverse();
                }
                let consumer = CONSUMERS[*consumer];
                let request = TakeRequest { order, limit: *limit, max_bytes: *max_bytes, ..all(consumer) };
                let granted = store.take(&request).await.unwrap();
                prop_assert_eq!(taken(&granted), self.model.take(consumer, order, *limit, *max_bytes));
            }
            Step::Read { consumer, priority } => {
                self.model.read(CONSUMERS[WORKERS + consumer], *priority);
                self.queue.read(CONSUMERS[*consumer], *priority).await;
            }
            Step::Start { consumer, max_bytes } => {
                let granted = store.start(0, CONSUMERS[*consumer], *max_bytes).await.unwrap();
                let inbox = CONSUMERS[WORKERS + consumer];
                let expected = self.model.start(CONSUMERS[*consumer], inbox, *max_bytes);
                prop_assert_eq!(taken(&granted), expected);
            }
            Step::Settle { grant, way } => {
                let Some(grant) = grant.checked_rem(grants) else { return Ok(()) };
                self.settle(self.model.grants[grant], *way).await?;
            }
            Step::Renew(number) => {
                let Some(grant) = number.checked_rem(grants) else { return Ok(()) };
                let grant = self.model.grants[grant];
                let job = &self.model.jobs[grant.job];
                let held = [Claim { job_id: job.id, token: grant.token, priority: job.priority }];
                let gone = store.renew(0, grant.consumer, &held).await.unwrap();
                prop_assert_eq!(gone.first().map(|(_, fence)| *fence), self.model.renew(grant));
            }
            Step::Cancel(number) => {
                let Some(index) = job(number) else { return Ok(()) };
                let cancelled = store.cancel(self.model.jobs[index].id, View::All).await.unwrap();
                prop_assert_eq!(cancelled, self.model.cancel(index));
            }
            Step::Requeue(number) => {
                let Some(index) = job(number) else { return Ok(()) };
                let (old, id) = (self.model.jobs[index].id, JobId::new(0));
                let charge = charge_of(0);
                let origin = Origin { charge: Some(&charge), ..ANYONE };
                let requeued = match store.requeue(old, id, origin).await.unwrap() {
                    Requeued::OverQuota { .. } => Requeued::OverQuota { room_in: None },
                    other => other,
                };
                prop_assert_eq!(requeued, self.model.requeue(index, id, PAYERS[0]));
            }
            Step::LoseInput(number) => {
                let Some(index) = job(number) else { return Ok(()) };
                self.model.lose_input(index);
                let key = store.keys().input(self.model.jobs[index].id);
                self.queue.redis::<u64>(&["DEL", &key]).await;
            }
            Step::MakeDue(number) => {
                let Some(index) = job(number) else { return Ok(()) };
                // Here the charge changes its place; time does not do that, and a recount could not know.
                let is_recounting =
                    self.queue.redis::<u64>(&["EXISTS", &store.keys().quota(0)[2]]).await == 1;
                if !is_recounting && self.model.make_due(index) {
                    self.queue.make_due(self.model.jobs[index].id).await;
                }
            }
            Step::Uncharge => {
                prop_assert_eq!(store.uncharge(0, 1_000).await.unwrap(), self.model.uncharge());
            }
            Step::Recount(limit) => {
                prop_assert_eq!(store.recount(0, *limit).await.unwrap().dropped, 0);
            }
            Step::Overrun(number) => {
                let Some(index) = job(number) else { return Ok(()) };
                if self.model.overrun(index) {
                    self.queue.set_field(self.model.jobs[index].id, "run_deadline", "1").await;
                }
            }
            Step::Expire(number) => {
                let Some(index) = job(number) else { return Ok(()) };
                let expired = store.expire(self.model.jobs[index].id).await.unwrap();
                prop_assert_eq!(expired, self.model.expire(index));
            }
            Step::Age(consumer) => {
                self.model.age(CONSUMERS[*consumer]);
                self.queue.age(CONSUMERS[*consumer]).await;
            }
            Step::DeleteConsumer(consumer) => {
                self.model.delete_consumer(CONSUMERS[*consumer]);
                for stream in store.keys().streams(0) {
                    let words = ["XGROUP", "DELCONSUMER", &stream, "workers", CONSUMERS[*consumer]];
                    self.queue.redis::<u64>(&words).await;
                }
            }
            Step::Sweep => {
                let swept = store.sweep(0, None, 1_000).await.unwrap();
                prop_assert_eq!((swept.repaired, swept.forgotten), (self.model.sweep(), 0));
            }
        }
        Ok(())
    }

    async fn settle(&mut self, grant: Grant, way: Way) -> Checked {
        let job = &self.model.jobs[grant.job];
        let claim = Claim { job_id: job.id, token: grant.token, priority: job.priority };
        let settlement = match way {
            Way::Complete => Settlement::Complete(result_of(job.id, grant.token, job.result_bytes())),
            Way::Fail => crate::queue::fail(),
            Way::RetryNow => Settlement::Retry(std::time::Duration::ZERO),
            Way::RetryLater => Settlement::Retry(self.queue.store.policy().lease),
            Way::Release => Settlement::Release,
        };
        prop_assert_eq!(self.queue.settle(&claim, settlement).await, self.model.settle(grant, way));
        Ok(())
    }

    /// Everything in Redis is as in the model.
    async fn compare(&self, after: &Step) -> Checked {
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
            self.queue.redis(&["HGETALL", &self.queue.store.keys().quota(0)[1]]).await;
        prop_assert_eq!(sums, self.model.sums(), "after {:?}", after);
        Ok(())
    }

    /// Faults have stopped: every job ends, and nothing is left over.
    async fn finish(mut self) -> Checked {
        self.step(&Step::Sweep).await?;
        // Each round ends every job that can be taken; a lost one can be lost again at most once.
        for _ in 0..2 {
            for consumer in 0..CONSUMERS.len() {
                self.step(&Step::Age(consumer)).await?;
            }
            let first = self.model.grants.len();
            self.step(&Step::Take { consumer: 0, turned: false, limit: 1_000, max_bytes: usize::MAX })
                .await?;
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

/// A result of so many bytes that tells whose it is.
fn result_of(id: JobId, token: u64, bytes: usize) -> String {
    format!(r#"{:bytes$}"#, format!(r#"{{"job":"{id}","token":{token}}}"#))
}

fn taken(granted: &tepal_shared::queue::scripts::Granted) -> Taken {
    Taken {
        granted: claims(granted).iter().map(|claim| (claim.job_id, claim.token)).collect(),
        ended: granted.ended.clone(),
    }
}
