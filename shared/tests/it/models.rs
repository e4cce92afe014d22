//! Several models in one queue: each has its own streams, limit, dead letters and lone job.

use std::time::Duration;

use tepal_shared::{
    job::{Claim, JobId, ModelName, NewJob, Priority, Stream, owner::View},
    queue::{
        intake::{Cancelled, Depths, Expired, Requeued, Submitted},
        work::{Granted, Settlement, TakeRequest},
    },
};

use tepal_tests::wait::eventually;

use crate::{
    delivery::reader_of,
    queue::{
        ANYONE, DONE, INPUT, Queue, SOON, all, all_streams, claims, complete, fail, ids, model, new_job,
        other, streams_of,
    },
};

/// Submits an ordinary job of this model and priority.
async fn submit(queue: &Queue, model: ModelName, priority: Priority) -> JobId {
    queue.submit_job(&NewJob { model, priority, ..new_job() }).await
}

/// Takes all jobs of these models.
async fn take(queue: &Queue, consumer: &str, models: &[ModelName]) -> Granted {
    let streams = streams_of(models);
    let from_start = vec![String::new(); streams.len()];
    let request = TakeRequest { streams: &streams, due_from: Some(&from_start), ..all(consumer) };
    queue.store.work.take(&request).await.unwrap()
}

/// Takes the only job of another model.
async fn take_other(queue: &Queue, consumer: &str) -> Claim {
    let granted = take(queue, consumer, &[other()]).await;
    let [claim] = claims(&granted)[..] else { panic!("{granted:?}") };
    claim
}

async fn length(queue: &Queue, key: &str) -> u64 {
    queue.redis(&["XLEN", key]).await
}

/// Unfinished jobs of another model, and of ordinary ones.
async fn lengths(queue: &Queue) -> [u64; 2] {
    let mut lengths = [0; 2];
    for (total, model) in lengths.iter_mut().zip([other(), model()]) {
        for key in queue.store.queue.keys().streams(0, model) {
            *total += length(queue, &key).await;
        }
    }
    lengths
}

pub(crate) async fn jobs_of_a_model_are_claimed_from_its_streams_only(queue: &Queue) {
    let ordinary = queue.submit().await;
    let of_other = submit(queue, other(), Priority::Normal).await;

    let granted = take(queue, "w", &[other()]).await;

    assert_eq!(ids(&granted), [of_other]);
    assert_eq!(claims(&granted)[0].stream, Stream { model: other(), priority: Priority::Normal });
    assert_eq!(queue.job(of_other).await.model, other().as_str());
    assert_eq!(queue.takeable("w").await, [ordinary]);
    assert_eq!(queue.job(ordinary).await.model, "iris");
}

pub(crate) async fn one_call_claims_jobs_of_several_models_in_the_order_of_the_streams(queue: &Queue) {
    let ordinary = queue.submit().await;
    let low = submit(queue, other(), Priority::Low).await;
    let high = submit(queue, other(), Priority::High).await;

    let granted = take(queue, "w", &[other(), model()]).await;

    assert_eq!(ids(&granted), [high, low, ordinary]);
    assert_eq!(granted.groups_created, 6);
    assert_eq!(granted.cursors, ["0-0"; 6]);
    let settlements: Vec<_> = claims(&granted).into_iter().map(|claim| (claim, complete())).collect();
    let settled = queue.store.work.settle(&settlements).await.unwrap();
    assert!(settled.into_iter().all(|settled| settled.unwrap() == DONE));
    assert_eq!(lengths(queue).await, [0, 0]);
}

pub(crate) async fn one_blocking_read_starts_jobs_of_several_models(queue: &Queue) {
    take(queue, "w", &[model(), other()]).await;
    let mut reader = reader_of(queue, Duration::from_millis(10));
    let submitted = [queue.submit().await, submit(queue, other(), Priority::Low).await];

    assert_eq!(ids(&reader.read().await.unwrap()), submitted[..1]);
    reader.read_from(all_streams());
    let started = reader.read().await.unwrap();
    assert_eq!(ids(&started), submitted[1..]);
    assert_eq!(claims(&started)[0].stream, Stream { model: other(), priority: Priority::Low });
}

pub(crate) async fn a_renewal_of_jobs_of_several_models_finds_all_of_them(queue: &Queue) {
    queue.submit().await;
    submit(queue, other(), Priority::Low).await;
    let held = claims(&take(queue, "w", &[model(), other()]).await);
    for claim in &held {
        let key = queue.store.queue.keys().stream(0, claim.stream);
        let entry = queue.field(claim.job_id, "entry").await.unwrap();
        let lease_ms = queue.store.queue.policy().lease.as_millis().to_string();
        let words = ["XCLAIM", &key, "workers", "w", "0", &entry, "IDLE", &lease_ms, "JUSTID"];
        assert_eq!(queue.redis::<Vec<String>>(&words).await, [entry.as_str()]);
    }

    assert_eq!(queue.store.work.renew(0, "w", &held).await.unwrap(), []);

    assert_eq!(ids(&take(queue, "heir", &[model(), other()]).await), []);
}

/// The last count, with a limit of another model.
fn depths(counted: &[(ModelName, u64)], limit: u64) -> Depths {
    let counted = counted.iter().map(|(model, count)| ((0, *model), *count)).collect();
    Depths { limits: [(other(), limit)].into(), counted }
}

pub(crate) async fn the_limit_of_a_partition_counts_all_models(queue: &Queue) {
    let queue = queue.with_policy(|policy| policy.max_queue_depth = 3);
    queue.submit().await;
    queue.submit().await;
    queue.store.intake.note_depths(depths(&[(model(), 2), (other(), 0)], 0));
    submit(&queue, other(), Priority::Normal).await;

    let outcome = queue.store.intake.submit(JobId::new(0), NewJob { model: other(), ..new_job() }).await;
    assert_eq!(outcome.unwrap(), Submitted::Full { outstanding: 3 });
    // The count of its own model is exact, that of others is the last one.
    queue.submit().await;
    queue.store.intake.note_depths(depths(&[(model(), 3), (other(), 1)], 0));
    let outcome = queue.store.intake.submit(JobId::new(0), new_job()).await.unwrap();
    assert_eq!(outcome, Submitted::Full { outstanding: 4 });
}

pub(crate) async fn a_model_has_a_limit_of_its_own(queue: &Queue) {
    queue.store.intake.note_depths(depths(&[(model(), 9)], 2));
    for priority in [Priority::High, Priority::Low] {
        submit(queue, other(), priority).await;
    }

    let outcome = queue.store.intake.submit(JobId::new(0), NewJob { model: other(), ..new_job() }).await;
    assert_eq!(outcome.unwrap(), Submitted::ModelFull { outstanding: 2 });
    queue.submit().await;
}

pub(crate) async fn a_requeued_job_stays_with_its_model(queue: &Queue) {
    let old = submit(queue, other(), Priority::High).await;
    let claim = take_other(queue, "w").await;
    assert_eq!(queue.settle(&claim, fail()).await, DONE);

    let requeue = async || {
        let id = JobId::new(0);
        (id, queue.store.intake.requeue(old, id, ANYONE).await.unwrap())
    };
    let (new, outcome) = requeue().await;
    assert_eq!(outcome, Requeued::Accepted);
    queue.store.intake.note_depths(depths(&[], 1));
    assert_eq!(requeue().await.1, Requeued::ModelFull { outstanding: 1 });
    queue.store.intake.note_depths(depths(&[(model(), 1_000_000)], 0));
    assert_eq!(requeue().await.1, Requeued::Full { outstanding: 1_000_001 });

    assert_eq!(queue.takeable("w").await, []);
    let again = take_other(queue, "w").await;
    assert_eq!(again.job_id, new);
    assert_eq!(again.stream, claim.stream);
}

pub(crate) async fn jobs_whose_lone_call_broke_off_wait_for_those_of_their_own_model_only(queue: &Queue) {
    let mut submitted = Vec::new();
    for model in [model(), other(), other()] {
        submitted.push(submit(queue, model, Priority::Normal).await);
    }
    let models = [model(), other()];
    for _ in 0..2 {
        for claim in claims(&take(queue, "w", &models).await) {
            assert_eq!(queue.settle(&claim, Settlement::Broken).await, DONE);
        }
    }

    let granted = take(queue, "w", &models).await;

    assert_eq!(ids(&granted), submitted[..2]);
}

pub(crate) async fn dead_letters_are_kept_for_each_model(queue: &Queue) {
    let failed = [queue.submit().await, submit(queue, other(), Priority::Low).await];
    for claim in claims(&take(queue, "w", &[model(), other()]).await) {
        assert_eq!(queue.settle(&claim, fail()).await, DONE);
    }

    for (model, id) in [model(), other()].into_iter().zip(failed) {
        let key = queue.store.queue.keys().dead(0, model);
        let letters: Vec<(String, Vec<String>)> = queue.redis(&["XRANGE", &key, "-", "+"]).await;
        assert_eq!(letters.len(), 1, "{key}");
        assert_eq!(letters[0].1[1], id.to_string());
        assert_eq!(queue.store.views.dead_letters(0, model).await.unwrap(), 1);
    }
}

pub(crate) async fn every_script_finds_the_stream_of_a_job(queue: &Queue) {
    for priority in Priority::ALL {
        let cancelled = submit(queue, other(), priority).await;
        let late = submit(queue, other(), priority).await;
        let [again, released] = ["again", "released"];
        queue.set_field(late, "queue_deadline", "1").await;
        assert_eq!(lengths(queue).await, [2, 0]);

        let outcome = queue.store.intake.cancel(cancelled, View::All).await.unwrap();
        assert_eq!((outcome, lengths(queue).await), (Cancelled::Done(Some(other())), [1, 0]));
        let expired = queue.store.intake.expire(late).await.unwrap();
        assert_eq!((expired, lengths(queue).await), (Expired::Failed("queue_timeout".to_owned()), [0, 0]));

        // Each puts the job back, and the next one takes it.
        let id = submit(queue, other(), priority).await;
        for (consumer, settlement) in
            [(again, Settlement::Retry(Duration::ZERO)), (released, Settlement::Release), ("w", complete())]
        {
            let claim = take_other(queue, consumer).await;
            assert_eq!((claim.job_id, claim.stream.priority), (id, priority));
            assert_eq!(queue.settle(&claim, settlement).await, DONE);
        }
        assert_eq!(lengths(queue).await, [0, 0]);
    }
}

/// Jobs of both models whose time in the queue is over, ordinary ones first.
async fn submit_late(queue: &Queue) -> [JobId; 2] {
    let late = [queue.submit().await, submit(queue, other(), Priority::Low).await];
    for id in late {
        queue.set_field(id, "queue_deadline", "1").await;
    }
    late
}

pub(crate) async fn a_claim_fails_and_clears_away_jobs_of_the_right_model(queue: &Queue) {
    let late = submit_late(queue).await;
    let mut stale = Vec::new();
    for model in [model(), other()] {
        let id = submit(queue, model, Priority::High).await;
        queue.set_field(id, "entry", "0-1").await;
        stale.push(id);
    }

    let granted = take(queue, "w", &[model(), other()]).await;

    let ended: Vec<_> = granted.ended.iter().map(|job| (job.job_id, job.model)).collect();
    assert_eq!(ended, [(late[0], model()), (late[1], other())]);
    assert_eq!(granted.stale, 2);
    assert_eq!(lengths(queue).await, [0, 0]);
    for (model, id) in [model(), other()].into_iter().zip(late) {
        assert_eq!(queue.store.views.dead_letters(0, model).await.unwrap(), 1, "{model}");
        assert!(queue.state(id).await.ends_with(" error ttl dead kept"), "{}", queue.state(id).await);
    }
}

pub(crate) async fn what_a_claim_leaves_stays_with_its_model(queue: &Queue) {
    let models = [model(), other()];
    let mut submitted = Vec::new();
    for model in models.into_iter().flat_map(|model| [model; 2]) {
        submitted.push(submit(queue, model, Priority::Normal).await);
    }
    let streams = streams_of(&models);
    let claim = async |max_bytes| {
        let from_start = vec![String::new(); streams.len()];
        let request = TakeRequest { streams: &streams, max_bytes, due_from: Some(&from_start), ..all("w") };
        queue.store.work.take(&request).await.unwrap()
    };
    // Each call has room for one job more than the ordinary ones. It reads both jobs of the other model.
    let granted = claim(2 * INPUT.len() + 1).await;
    assert_eq!(ids(&granted), submitted[..3]);
    for claim in claims(&granted) {
        assert_eq!(queue.settle(&claim, Settlement::Release).await, DONE);
    }
    assert_eq!(ids(&claim(2 * INPUT.len() + 1).await), submitted[..3]);
    assert_eq!(ids(&claim(usize::MAX).await), submitted[3..]);
}

pub(crate) async fn what_a_start_leaves_stays_with_its_model(queue: &Queue) {
    take(queue, "w", &[model(), other()]).await;
    let submitted = [queue.submit().await, submit(queue, other(), Priority::Normal).await];
    for stream in [Stream::all_of(model())[1], Stream::all_of(other())[1]] {
        assert!(queue.read("w", stream).await);
    }

    let started = queue.store.work.start(0, "w", &all_streams(), 1).await.unwrap();

    assert_eq!(ids(&started), submitted[..1]);
    assert_eq!(ids(&take(queue, "heir", &[other()]).await), submitted[1..]);
}

pub(crate) async fn a_search_for_due_jobs_goes_on_in_each_model_where_it_stopped(queue: &Queue) {
    let models = [model(), other()];
    for model in models {
        submit(queue, model, Priority::High).await;
    }
    let claimed = claims(&take(queue, "w", &models).await);
    for claim in &claimed {
        assert_eq!(queue.settle(claim, Settlement::Release).await, DONE);
    }
    let streams = streams_of(&models);
    let mut from = vec![String::new(); streams.len()];
    from[0] = format!("{}-0", u64::MAX);

    let request = TakeRequest { streams: &streams, due_from: Some(&from), ..all("w") };
    let granted = queue.store.work.take(&request).await.unwrap();

    assert_eq!(ids(&granted), [claimed[1].job_id]);
    assert_eq!(granted.cursors, ["0-0"; 6]);
}

pub(crate) async fn a_job_keeps_its_model_when_it_ends(queue: &Queue) {
    let cancelled = submit(queue, other(), Priority::Low).await;
    queue.store.intake.cancel(cancelled, View::All).await.unwrap();
    let mut ended = vec![cancelled];
    for settlement in [complete(), fail()] {
        submit(queue, other(), Priority::Normal).await;
        let claim = take_other(queue, "w").await;
        assert_eq!(queue.settle(&claim, settlement).await, DONE);
        ended.push(claim.job_id);
    }

    for id in ended {
        assert_eq!(queue.job(id).await.model, other().as_str());
    }
    let new = JobId::new(0);
    assert_eq!(queue.store.intake.requeue(cancelled, new, ANYONE).await.unwrap(), Requeued::Accepted);
    assert_eq!(queue.job(new).await.model, other().as_str());
}

pub(crate) async fn a_sweep_knows_how_far_each_model_was_delivered(queue: &Queue) {
    let waiting = submit(queue, other(), Priority::Normal).await;
    let running = queue.submit_and_take("w").await;
    let group = ["XGROUP", "CREATE", &queue.entry(waiting).await.0, "workers", "0"];
    queue.redis::<()>(&group).await;

    assert_eq!(queue.store.work.sweep(0, None, 100).await.unwrap().repaired, 0);

    assert_eq!(queue.state(waiting).await, "pending 0/0/0 new input");
    assert_eq!(queue.settle(&running, complete()).await, DONE);
}

pub(crate) async fn consumers_of_dead_workers_go_from_every_model(queue: &Queue) {
    for model in [model(), other()] {
        submit(queue, model, Priority::Normal).await;
        for claim in claims(&take(queue, "dead-1", &[model]).await) {
            assert_eq!(queue.settle(&claim, complete()).await, DONE);
        }
    }
    let streams = [Stream::all_of(model())[1], Stream::all_of(other())[1]];

    let prune = async || queue.store.work.prune(0, &streams, &[], Duration::ZERO).await.unwrap();
    let mut gone = 0;
    eventually(SOON, "two consumers to go", async || {
        gone += prune().await;
        gone == 2
    })
    .await;
    assert_eq!(prune().await, 0);
}

pub(crate) async fn a_sweep_repairs_jobs_of_every_model(queue: &Queue) {
    let lost = [submit(queue, other(), Priority::High).await, queue.submit().await];
    let whole = submit(queue, other(), Priority::Low).await;
    for (id, stream) in lost.into_iter().zip([Stream::all_of(other())[0], Stream::all_of(model())[1]]) {
        let entry = queue.field(id, "entry").await.unwrap();
        queue.redis::<u64>(&["XDEL", &queue.store.queue.keys().stream(0, stream), &entry]).await;
    }

    assert_eq!(queue.store.work.sweep(0, None, 100).await.unwrap().repaired, 2);

    assert_eq!(ids(&take(queue, "w", &[other()]).await), [lost[0], whole]);
    assert_eq!(queue.takeable("w").await, [lost[1]]);
}

as_tests![
    jobs_of_a_model_are_claimed_from_its_streams_only,
    one_call_claims_jobs_of_several_models_in_the_order_of_the_streams,
    one_blocking_read_starts_jobs_of_several_models,
    a_renewal_of_jobs_of_several_models_finds_all_of_them,
    the_limit_of_a_partition_counts_all_models,
    a_model_has_a_limit_of_its_own,
    a_requeued_job_stays_with_its_model,
    jobs_whose_lone_call_broke_off_wait_for_those_of_their_own_model_only,
    dead_letters_are_kept_for_each_model,
    every_script_finds_the_stream_of_a_job,
    a_claim_fails_and_clears_away_jobs_of_the_right_model,
    what_a_claim_leaves_stays_with_its_model,
    what_a_start_leaves_stays_with_its_model,
    a_search_for_due_jobs_goes_on_in_each_model_where_it_stopped,
    a_job_keeps_its_model_when_it_ends,
    a_sweep_knows_how_far_each_model_was_delivered,
    consumers_of_dead_workers_go_from_every_model,
    a_sweep_repairs_jobs_of_every_model,
];
