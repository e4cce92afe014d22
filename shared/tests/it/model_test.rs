//! Random sequences of everything that clients, workers, operators and time do to a queue, against a real Redis and
//! against the model. A sequence that goes wrong is reduced to a short one.

mod run;

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use tepal_shared::job::{Charge, ModelName, Stream};

use tokio::runtime::Runtime;

use self::run::Run;
use crate::{
    altered::{Alteration, Altered},
    model::{MAX_LOST, MOST_BYTES, Model, WAITING, Way},
    queue::{Queue, model, other, streams_of},
};

const CASES: u32 = 96;
const LONGEST: usize = 60;
const WORKERS: usize = 3;
/// Names of the workers, their inboxes in the same order, and the consumer of released entries.
const CONSUMERS: [&str; 2 * WORKERS + 1] =
    ["w-1", "w-2", "w-3", "w-1:inbox", "w-2:inbox", "w-3:inbox", WAITING];

/// A step. A number selects a job or a claim, modulo their number. A step is skipped if there is none.
#[derive(Clone, Debug)]
enum Step {
    Submit {
        stream: Stream,
        key: Option<(u8, u8)>,
        bytes: usize,
        payer: usize,
    },
    SubmitAgain(usize),
    Take {
        consumer: usize,
        models: Vec<ModelName>,
        turned: bool,
        limit: usize,
        max_bytes: usize,
    },
    /// A blocking read that is not started yet.
    Read {
        consumer: usize,
        stream: Stream,
    },
    Start {
        consumer: usize,
        models: Vec<ModelName>,
        max_bytes: usize,
    },
    /// By any earlier claim, zombies included.
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
    /// The time of a lease passes for the entries of a consumer: its worker was killed, or its released jobs are due.
    Age(usize),
    DeleteConsumer(usize),
    Sweep,
}

/// Most jobs are of one model, so that rare sequences of one job still come up.
fn stream() -> impl Strategy<Value = Stream> {
    prop_oneof![
        4 => prop::sample::select(streams_of(&[model()])),
        1 => prop::sample::select(streams_of(&[other()])),
    ]
}

/// The models of a call.
fn models() -> impl Strategy<Value = Vec<ModelName>> {
    prop_oneof![
        5 => Just(vec![model(), other()]),
        1 => Just(vec![other(), model()]),
        1 => Just(vec![model()]),
        1 => Just(vec![other()]),
    ]
}

/// Length of a job's input.
fn bytes() -> impl Strategy<Value = usize> {
    prop::sample::select(vec![1, 1, 10, 100, 9_000])
}

/// The payers. The first one pays for requeued jobs.
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
        6 => (stream(), prop::option::weighted(0.3, (0..3_u8, 0..2_u8)), bytes(), 0..PAYERS.len())
            .prop_map(|(stream, key, bytes, payer)| Step::Submit { stream, key, bytes, payer }),
        1 => subject.clone().prop_map(Step::SubmitAgain),
        6 => (consumer.clone(), models(), any::<bool>(), 1..5_usize, max_bytes()).prop_map(
            |(consumer, models, turned, limit, max_bytes)| {
                Step::Take { consumer, models, turned, limit, max_bytes }
            }
        ),
        2 => (consumer.clone(), stream()).prop_map(|(consumer, stream)| Step::Read { consumer, stream }),
        2 => (consumer, models(), max_bytes())
            .prop_map(|(consumer, models, max_bytes)| Step::Start { consumer, models, max_bytes }),
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
        assert!(check(&runtime, &altered.queue, 50 * CASES, 0).is_err(), "unnoticed: {alteration:?}");
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Runs `cases` sequences, each in a queue of its own. Reduces a failing one in `max_shrink_iters` steps.
fn check(runtime: &Runtime, queue: &Queue, cases: u32, max_shrink_iters: u32) -> Result<(), String> {
    let queue = queue.with_policy(|policy| policy.max_lost = MAX_LOST as u32);
    let config = Config { cases, max_shrink_iters, failure_persistence: None, ..Config::default() };
    let steps = prop::collection::vec(step(), 1..LONGEST);
    let checked = TestRunner::new(config).run(&steps, |steps| {
        runtime.block_on(async {
            let mut run = Run { queue: queue.another(), model: Model::default() };
            run.make_groups().await;
            for step in steps {
                run.step(&step).await?;
                run.compare(&step).await?;
            }
            run.finish().await
        })
    });
    checked.map_err(|failure| failure.to_string())
}
