//! How a job ends: once, with a notification, a lifetime and, if it failed, a dead letter.

use std::{collections::BTreeMap, time::Duration};

use redis::{AsyncConnectionConfig, PushInfo, PushKind, Value, aio::MultiplexedConnection};
use tepal_shared::{
    content::Content,
    job::{Claim, JobId, JobResult, JobStatus, LARGE_BYTES, Priority, owner::View},
    queue::work::{Fence, Settled, Settlement},
    tensor::{DataType, Tensor, stored_outputs},
};
use tokio::{
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    time::timeout,
};

use crate::queue::{DONE, Queue, SOON, complete, fail, model, new_job, stream};

/// Ends a job in each way; the status it then has.
async fn end(queue: &Queue, attempt: &Claim, way: usize) -> &'static str {
    match way {
        0 => assert_eq!(queue.settle(attempt, complete()).await, DONE),
        1 => assert_eq!(queue.settle(attempt, fail()).await, DONE),
        2 => {
            queue.store.intake.cancel(attempt.job_id, View::All).await.unwrap();
        }
        _ => {
            queue.set_field(attempt.job_id, "run_deadline", "1").await;
            queue.store.intake.expire(attempt.job_id).await.unwrap();
        }
    }
    ["completed", "failed", "cancelled", "failed"][way]
}

/// Follows a channel on a connection of its own.
async fn subscribe(queue: &Queue, channel: &str) -> (MultiplexedConnection, UnboundedReceiver<PushInfo>) {
    let url = format!("{}?protocol=resp3", queue.server().url());
    let (sender, mut pushes) = unbounded_channel();
    let config = AsyncConnectionConfig::new().set_push_sender(sender);
    let client = redis::Client::open(url).unwrap();
    let mut connection = client.get_multiplexed_async_connection_with_config(&config).await.unwrap();
    redis::cmd("SSUBSCRIBE").arg(channel).exec_async(&mut connection).await.unwrap();
    assert_eq!(pushes.recv().await.unwrap().kind, PushKind::SSubscribe);
    (connection, pushes)
}

pub(crate) async fn every_end_is_published_to_all_who_wait_for_it(queue: &Queue) {
    for way in 0..4 {
        let attempt = queue.submit_and_take("w").await;
        let channel = queue.store.queue.keys().job(attempt.job_id);
        let (_connection, mut pushes) = subscribe(queue, &channel).await;

        let status = end(queue, &attempt, way).await;

        let PushInfo { kind, data } = timeout(SOON / 10, pushes.recv()).await.unwrap().unwrap();
        assert_eq!(kind, PushKind::SMessage);
        let [of, message] = &data[..] else { panic!("{data:?}") };
        assert_eq!((of, message), (&Value::BulkString(channel.into()), &Value::BulkString(status.into())));
    }
}

pub(crate) async fn every_end_has_its_time(queue: &Queue) {
    for way in 0..4 {
        let id = queue.submit().await;
        let created_at_ms = queue.job(id).await.created_at_ms - 5_000;
        queue.set_field(id, "at", &created_at_ms.to_string()).await;
        let attempt = queue.take_one("w").await;

        end(queue, &attempt, way).await;

        let job = queue.job(id).await;
        let (started, finished) = (job.started_at_ms.unwrap(), job.finished_at_ms.unwrap());
        assert!(started >= created_at_ms + 5_000 && started <= finished, "{job:?}");
        assert!(Duration::from_millis(finished - created_at_ms - 5_000) < SOON, "{job:?}");
    }
}

pub(crate) async fn no_byte_of_a_job_changes_after_its_end(queue: &Queue) {
    for way in 0..4 {
        let attempt = queue.submit_and_take("w").await;
        end(queue, &attempt, way).await;
        let record = record(queue, attempt.job_id).await;

        for settlement in [complete(), fail(), Settlement::Retry(SOON), Settlement::Release] {
            queue.settle(&attempt, settlement).await;
        }
        let other = Settlement::Complete("{}".to_owned());
        queue.settle(&attempt, other).await;
        queue.renews("w", &attempt).await;
        queue.store.intake.cancel(attempt.job_id, View::All).await.unwrap();
        queue.store.intake.expire(attempt.job_id).await.unwrap();
        queue.store.intake.submit(attempt.job_id, new_job()).await.unwrap();
        queue.store.work.sweep(0, None, 100).await.unwrap();
        let stream = queue.store.queue.keys().stream(0, stream(Priority::Normal));
        queue.redis::<String>(&["XADD", &stream, "*", "id", &attempt.job_id.to_string()]).await;
        assert_eq!(queue.takeable("heir").await, []);

        assert_eq!(self::record(queue, attempt.job_id).await, record);
    }
}

async fn record(queue: &Queue, id: JobId) -> BTreeMap<String, String> {
    queue.redis(&["HGETALL", &queue.store.queue.keys().job(id)]).await
}

pub(crate) async fn many_results_stored_at_once_reach_their_own_jobs(queue: &Queue) {
    for number in 0..100 {
        queue.submit_at(Priority::ALL[number % 3]).await;
    }
    let granted = queue.claims("w", 100).await;
    let result = |attempt: &Claim| format!(r#"{{"of":"{}"}}"#, attempt.job_id);
    // Every tenth is cancelled, every eleventh is settled in another way.
    let mut settlements = Vec::new();
    for (number, attempt) in granted.iter().enumerate() {
        if number % 10 == 0 {
            queue.store.intake.cancel(attempt.job_id, View::All).await.unwrap();
        }
        let retry = number % 11 == 0;
        let completion = Settlement::Complete(result(attempt));
        settlements.push((*attempt, if retry { Settlement::Retry(SOON * 2) } else { completion }));
    }

    let settled = queue.store.work.settle(&settlements).await.unwrap();

    assert_eq!(settled.len(), 100);
    let mut retried = 0;
    for (number, (attempt, settled)) in granted.iter().zip(settled).enumerate() {
        let settled = settled.unwrap();
        let job = queue.job(attempt.job_id).await;
        if number % 10 == 0 {
            assert_eq!(settled, Settled::Fenced(Fence::Cancelled), "{number}");
        } else if number % 11 == 0 {
            assert_eq!((settled, job.status), (DONE, JobStatus::Pending), "{number}");
            retried += 1;
        } else {
            let stored = Some(JobResult::Inline(result(attempt)));
            assert_eq!((settled, job.result), (DONE, stored), "{number}");
        }
    }
    assert_eq!(queue.outstanding().await, (retried, retried));
}

pub(crate) async fn a_large_result_is_read_by_itself_and_its_job_says_its_size(queue: &Queue) {
    let text = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
    for bytes in [LARGE_BYTES, LARGE_BYTES + 1, 1 << 20] {
        let attempt = queue.submit_and_take("w").await;
        let id = attempt.job_id;
        assert_eq!(queue.settle(&attempt, Settlement::Complete(text(bytes))).await, DONE);

        let (stored, large) = if bytes <= LARGE_BYTES {
            (JobResult::Inline(text(bytes)), None)
        } else {
            (JobResult::Large { bytes }, Some(text(bytes).into_bytes()))
        };
        assert_eq!(queue.job(id).await.result, Some(stored));
        assert_eq!(queue.store.views.large_result(id).await.unwrap(), large);
        assert_eq!(queue.store.views.listed(&[id]).await.unwrap()[0].as_ref().unwrap().result, None);
        let ttl: u64 = queue.redis(&["TTL", &queue.store.queue.keys().job(id)]).await;
        assert!(ttl > 0, "{ttl}");
    }
    assert_eq!(queue.store.views.large_result(JobId::new(0)).await.unwrap(), None);
}

pub(crate) async fn tensors_are_read_as_tensors_whatever_their_size(queue: &Queue) {
    for elements in [10, LARGE_BYTES + 1] {
        let tensor = Tensor {
            name: "y".to_owned(),
            datatype: DataType::Uint8,
            shape: vec![elements],
            data: vec![b'@'; elements],
        };
        let stored = stored_outputs::write([tensor.view()]);
        let attempt = queue.submit_and_take("w").await;
        let settlement = Settlement::CompleteStored(stored.clone());
        assert_eq!(queue.settle(&attempt, settlement.clone()).await, DONE);
        assert_eq!(queue.settle(&attempt, settlement).await, DONE);

        let (result, large) = if stored.len() <= LARGE_BYTES {
            (JobResult::Tensors(vec![tensor]), None)
        } else {
            (JobResult::LargeTensors { bytes: stored.len() }, Some(stored))
        };
        assert_eq!(queue.job(attempt.job_id).await.result, Some(result));
        assert_eq!(queue.store.views.large_result(attempt.job_id).await.unwrap(), large);
    }
}

pub(crate) async fn bytes_are_read_with_their_content_type_whatever_their_size(queue: &Queue) {
    for length in [10, LARGE_BYTES + 1] {
        let (content_type, bytes) = ("image/png; a=b".to_owned(), vec![b'%'; length]);
        let stored = Content::Bytes { content_type: &content_type, bytes: &bytes }.stored();
        let attempt = queue.submit_and_take("w").await;
        let settlement = Settlement::CompleteStored(stored.clone());
        assert_eq!(queue.settle(&attempt, settlement).await, DONE);

        let (result, large) = if stored.len() <= LARGE_BYTES {
            (JobResult::Bytes { content_type, bytes }, None)
        } else {
            (JobResult::LargeBytes { content_type, bytes: stored.len() }, Some(stored))
        };
        assert_eq!(queue.job(attempt.job_id).await.result, Some(result));
        assert_eq!(queue.store.views.large_result(attempt.job_id).await.unwrap(), large);
    }
}

pub(crate) async fn a_dead_letter_contains_the_job_and_the_reason(queue: &Queue) {
    let attempt = queue.submit_and_take("w").await;
    assert_eq!(queue.settle(&attempt, Settlement::Release).await, DONE);
    let attempt = queue.take_one("w").await;
    assert_eq!(queue.settle(&attempt, fail()).await, DONE);

    let dead: Vec<(String, BTreeMap<String, String>)> =
        queue.redis(&["XRANGE", &queue.store.queue.keys().dead(0, model()), "-", "+"]).await;

    let id = attempt.job_id.to_string();
    let expected = [("attempts", "1"), ("error_code", "invalid_argument"), ("id", &id)];
    let fields: Vec<_> = dead[0].1.iter().map(|(field, value)| (field.as_str(), value.as_str())).collect();
    assert_eq!(fields, expected);
    assert_eq!(queue.store.views.dead_letters(0, model()).await.unwrap(), 1);
}

pub(crate) async fn dead_letters_are_kept_up_to_a_limit(queue: &Queue) {
    let queue = queue.with_policy(|policy| policy.max_dead_letters = 10);
    for _ in 0..250 {
        let attempt = queue.submit_and_take("w").await;
        assert_eq!(queue.settle(&attempt, fail()).await, DONE);
    }
    // Redis trims whole nodes, of 100 entries.
    let kept = queue.store.views.dead_letters(0, model()).await.unwrap();
    assert!((10..=110).contains(&kept), "{kept}");
}

as_tests![
    many_results_stored_at_once_reach_their_own_jobs,
    a_large_result_is_read_by_itself_and_its_job_says_its_size,
    tensors_are_read_as_tensors_whatever_their_size,
    bytes_are_read_with_their_content_type_whatever_their_size,
    every_end_is_published_to_all_who_wait_for_it,
    every_end_has_its_time,
    no_byte_of_a_job_changes_after_its_end,
    a_dead_letter_contains_the_job_and_the_reason,
    dead_letters_are_kept_up_to_a_limit,
];
