//! Redis's clock was ahead for a while and is right again. Ids of streams never decrease: those of later entries are ahead
//! of the clock until it has caught up. Adding an entry with such an id has the same effect; the last test shifts the clock.

use std::{
    process::Command,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tempfile::TempDir;
use tepal_shared::{
    job::{JobId, NewJob, Priority},
    queue::{
        intake::Expired,
        work::{Settlement, Swept},
    },
};
use tepal_tests::{redis::RedisServer, wait::eventually};

use crate::queue::{DONE, Queue, SOON, model, new_job, stream};

const DAY_MS: u64 = 86_400_000;

/// Redis's time, Unix ms.
async fn now(queue: &Queue) -> u64 {
    let (seconds, micros): (u64, u64) = queue.redis(&["TIME"]).await;
    seconds * 1000 + micros / 1000
}

/// A job that is accepted while the clock is ahead by this much. The clock is right again afterwards.
async fn accepted_ahead(queue: &Queue, ahead_ms: u64) -> JobId {
    let (id, at) = (JobId::new(0), (now(queue).await + ahead_ms).to_string());
    let (keys, entry) = (queue.store.queue.keys(), format!("{at}-0"));
    let stream = keys.stream(0, stream(Priority::Normal));
    let fields = ["status", "pending", "at", &at, "entry", &entry, "input", "[]"];
    queue.redis::<u64>(&[&["HSET", &keys.job(id)], &fields[..]].concat()).await;
    queue.redis::<String>(&["XADD", &stream, &entry, "id", &id.to_string()]).await;
    let mut command = redis::cmd("XADD");
    command.arg(keys.log(0)).arg(&entry).arg("id").arg(&id.as_bytes()[..]);
    queue.store.queue.primary(0).run(&command).await.unwrap();
    id
}

pub(crate) async fn jobs_have_the_right_time_after_the_clock_was_ahead(queue: &Queue) {
    accepted_ahead(queue, DAY_MS).await;
    let first = now(queue).await;

    let job = NewJob { max_queue: Some(Duration::from_millis(1)), ..new_job() };
    let ids = [queue.submit_job(&job).await, queue.submit_job(&job).await];

    let last = now(queue).await;
    for id in ids {
        let created_at = queue.job(id).await.created_at_ms;
        assert!((first..=last).contains(&created_at), "{created_at} is not in {first}..={last}");
        let is_late =
            async || queue.store.intake.expire(id).await.unwrap() == Expired::Failed("queue_timeout".into());
        eventually(SOON, "the deadline to pass", is_late).await;
    }
}

pub(crate) async fn a_listing_by_time_begins_where_the_ids_were_ahead(queue: &Queue) {
    let unchanged = now(queue).await;
    let mut expected = Vec::new();
    let mut later = 0;
    for days in [1, 2] {
        accepted_ahead(queue, days * DAY_MS).await;
        expected.push(queue.submit().await);
        if days == 1 {
            let submitted = queue.job(expected[0]).await.created_at_ms;
            eventually(SOON, "time to pass", async || now(queue).await > submitted + 1).await;
            later = submitted + 1;
        }
    }

    let place = queue.store.views.log_before(later).await.unwrap();
    let log = queue.store.views.log(Some(place), 10).await.unwrap().entries;
    let listed: Vec<_> = log.iter().map(|entry| entry.id).collect();
    assert!(expected.iter().all(|id| listed.contains(id)), "{log:?}");
    assert_eq!(queue.store.views.log_before(unchanged - 1).await.unwrap().ms, unchanged + 999);
}

pub(crate) async fn expired_jobs_are_forgotten_after_the_clock_was_ahead(queue: &Queue) {
    accepted_ahead(queue, DAY_MS).await;
    let expired = queue.submit().await;
    queue.redis::<u64>(&["DEL", &queue.store.queue.keys().job(expired)]).await;
    queue.submit().await;

    let swept = queue.store.work.sweep_expired(0, None, 100).await.unwrap();

    assert_eq!(swept, Swept { next: None, forgotten: 1, repaired: 0 });
}

pub(crate) async fn the_oldest_job_is_found_by_its_own_time(queue: &Queue) {
    assert_eq!(queue.store.views.oldest_waiting(0, model()).await.unwrap(), None);
    let ahead = accepted_ahead(queue, DAY_MS).await;
    assert_eq!(queue.store.views.oldest_waiting(0, model()).await.unwrap(), Some(Duration::ZERO));
    let id = queue.submit().await;
    queue.set_field(id, "at", &(now(queue).await - 60_000).to_string()).await;

    let minute = Duration::from_secs(60)..Duration::from_secs(60) + SOON;
    let is_a_minute = async || {
        let age = queue.store.views.oldest_waiting(0, model()).await.unwrap().unwrap();
        assert!(minute.contains(&age), "{age:?}");
    };
    is_a_minute().await;
    // The same when they wait for their next attempts.
    for attempt in queue.claims("w", 10).await {
        assert_eq!(queue.settle(&attempt, Settlement::Release).await, DONE);
    }
    is_a_minute().await;
    assert_eq!(queue.field(ahead, "waited_ms").await.as_deref(), Some("0"));
}

as_tests![
    jobs_have_the_right_time_after_the_clock_was_ahead,
    a_listing_by_time_begins_where_the_ids_were_ahead,
    expired_jobs_are_forgotten_after_the_clock_was_ahead,
    the_oldest_job_is_found_by_its_own_time;
    one_server:
    a_clock_that_was_shifted_for_a_moment_harms_no_later_job,
];

/// A Redis whose clock the test shifts, see `shifted_clock.c`.
struct ShiftedClock {
    queue: Queue,
    dir: TempDir,
}

impl ShiftedClock {
    async fn start() -> Self {
        let dir = TempDir::new().unwrap();
        let (library, shift) = (dir.path().join("shifted_clock.so"), dir.path().join("shift"));
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/shifted_clock.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source);
        assert!(compiler.status().expect("a C compiler").success());
        std::fs::write(&shift, "0").unwrap();
        let preload = format!("LD_PRELOAD={}", library.display());
        let file = format!("SHIFT_FILE={}", shift.display());
        let server = RedisServer::options().through(&["env", &preload, &file]).start().await;
        Self { queue: Queue::on_server(server).await, dir }
    }

    /// Shifts the clock by this many seconds.
    async fn set(&self, seconds: i64) {
        std::fs::write(self.dir.path().join("shift"), seconds.to_string()).unwrap();
        let right = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
        let is_set = async || (now(&self.queue).await as i64 / 1000 - right() - seconds).abs() < 60;
        eventually(SOON, "the clock to be set", is_set).await;
    }
}

/// One job is accepted while the clock is wrong. All others are not affected.
async fn a_clock_that_was_shifted_for_a_moment_harms_no_later_job(_: &Queue) {
    for day in [86_400, -86_400] {
        let clock = ShiftedClock::start().await;
        let queue = &clock.queue;
        let before = queue.submit().await;
        clock.set(day).await;
        let meanwhile = queue.submit().await;
        clock.set(0).await;

        let first = now(queue).await;
        let job = NewJob { max_queue: Some(Duration::from_millis(1)), ..new_job() };
        let late = queue.submit_job(&job).await;
        let after = queue.submit().await;

        let last = now(queue).await;
        for id in [late, after] {
            let created_at = queue.job(id).await.created_at_ms;
            assert!((first..=last).contains(&created_at), "{day}: {created_at} is not in {first}..={last}");
        }
        let is_late = async || {
            queue.store.intake.expire(late).await.unwrap() == Expired::Failed("queue_timeout".into())
        };
        eventually(SOON, "the deadline to pass", is_late).await;
        let place = queue.store.views.log_before(last + 1).await.unwrap();
        let listed = queue.store.views.log(Some(place), 10).await.unwrap().entries;
        assert!(listed.iter().any(|entry| entry.id == after), "{day}: {listed:?}");
        assert!(queue.store.views.oldest_waiting(0, model()).await.unwrap().is_some());
        let granted = queue.claims("w", 10).await;
        let ids: Vec<_> = granted.iter().map(|attempt| attempt.job_id).collect();
        assert_eq!(ids, [before, meanwhile, after], "{day}");
        for attempt in &granted {
            assert_eq!(queue.settle(attempt, Settlement::Complete("{}".into())).await, DONE, "{day}");
        }
    }
}
