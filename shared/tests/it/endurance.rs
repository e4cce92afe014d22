//! Large numbers: a long backlog, a long list of pending entries, and many cycles in the same memory.
#![allow(clippy::print_stdout, reason = "figures for the reader, which no limit can be set for")]

use std::{collections::HashSet, time::Duration};

use futures_util::future::join_all;
use redis::{Script, Value};
use tepal_shared::{
    job::{JobId, Priority, owner::View},
    queue::work::{Settlement, TakeRequest},
};
use tepal_tests::wait::eventually;

use crate::queue::{DONE, FROM_START, Queue, SOON, all, claims, complete, fail, ids, stream};

/// `MOST_CLEARED` and `CHUNK` in `take.lua`.
const MOST_CLEARED: usize = 64 + 16;

/// Makes many jobs at once, as `submit` would. ARGV: job prefix, queue_deadline, per job: id, its 16 bytes.
const POPULATE: &str = "
    for i = 3, #ARGV, 2 do
      local entry = redis.call('XADD', KEYS[1], '*', 'id', ARGV[i])
      redis.call('HSET', ARGV[1] .. ARGV[i], 'status', 'pending', 'at', '1700000000000', 'entry', entry,
        'input', '[[5.1,3.5,1.4,0.2]]', 'queue_deadline', ARGV[2])
      redis.call('XADD', KEYS[2], '*', 'id', ARGV[i + 1])
    end";

/// Adds so many jobs to the stream of this priority.
async fn populate(queue: &Queue, priority: Priority, jobs: usize, queue_deadline: &str) {
    let script = Script::new(POPULATE);
    let keys = queue.store.queue.keys();
    for first in (0..jobs).step_by(1_000) {
        let mut call = script.key(keys.stream(0, stream(priority)));
        call.key(keys.log(0)).arg(keys.job_prefix(0)).arg(queue_deadline);
        for _ in first..jobs.min(first + 1_000) {
            let id = JobId::new(0);
            call.arg(id.to_string()).arg(&id.as_bytes()[..]);
        }
        call.invoke_async::<Value>(&mut queue.connection()).await.unwrap();
    }
}

/// Memory that the server of the queue's keys uses.
async fn memory(queue: &Queue) -> u64 {
    let info: String = queue.redis(&["INFO", "memory"]).await;
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
    used.unwrap().trim().parse().unwrap()
}

/// The worst case of a backlog: nearly all of it must be cleared before a job can run.
pub(crate) async fn a_backlog_of_200_000_jobs_drains_in_short_steps(queue: &Queue) {
    let (late, live) = (190_000, 10_000);
    populate(queue, Priority::Normal, late, "1").await;
    populate(queue, Priority::Low, live, "99999999999999").await;
    queue.redis::<String>(&["CONFIG", "SET", "slowlog-log-slower-than", "5000"]).await;
    queue.redis::<String>(&["SLOWLOG", "RESET"]).await;

    let (mut failed, mut done, mut calls) = (0, 0, 0);
    while failed + done < late + live {
        let granted = queue.store.work.take(&TakeRequest { limit: 256, ..all("w") }).await.unwrap();
        calls += 1;
        assert!(granted.deliveries.len() <= 256, "{}", granted.deliveries.len());
        assert!(granted.ended.len() <= MOST_CLEARED, "{}", granted.ended.len());
        assert!(!granted.deliveries.is_empty() || !granted.ended.is_empty(), "nothing after {calls} calls");
        failed += granted.ended.len();
        done += granted.deliveries.len();
        let settlements: Vec<_> = claims(&granted).into_iter().map(|claim| (claim, complete())).collect();
        for settled in queue.store.work.settle(&settlements).await.unwrap() {
            assert_eq!(settled.unwrap(), DONE);
        }
    }

    assert_eq!((failed, done), (late, live));
    assert_eq!(queue.outstanding().await, (0, 0));
    // Printed, not checked: the time of a script depends on the machine and its load.
    let slow: Vec<(u64, u64, u64, Value, Value, Value)> = queue.redis(&["SLOWLOG", "GET", "100"]).await;
    let longest_us = slow.iter().map(|entry| entry.2).max();
    println!("{calls} takes, {} calls over 5 ms, the longest {longest_us:?} us", slow.len());
}

pub(crate) async fn due_entries_among_many_pending_ones_are_all_found_once(queue: &Queue) {
    populate(queue, Priority::Normal, 3_000, "99999999999999").await;
    let mut held = Vec::new();
    while held.len() < 3_000 {
        held.extend(queue.claims("busy", 1_000).await);
    }
    let due: HashSet<_> = held.iter().skip(1_500).map(|attempt| attempt.job_id).collect();
    let released = held.iter().skip(1_500).map(|claim| (*claim, Settlement::Release)).collect::<Vec<_>>();
    queue.store.work.settle(&released).await.unwrap();

    let (mut cursors, mut found) = (FROM_START.to_vec(), Vec::new());
    for _ in 0..100 {
        let request = TakeRequest { limit: 64, due_from: Some(&cursors), ..all("w") };
        let granted = queue.store.work.take(&request).await.unwrap();
        found.extend(ids(&granted));
        cursors = granted.cursors;
    }

    assert_eq!(found.len(), due.len());
    assert_eq!(found.into_iter().collect::<HashSet<_>>(), due);
}

pub(crate) async fn one_call_clears_away_a_bounded_number_of_stale_entries(queue: &Queue) {
    let stream = queue.store.queue.keys().stream(0, stream(Priority::High));
    for _ in 0..500 {
        queue.redis::<String>(&["XADD", &stream, "*", "id", &JobId::new(0).to_string()]).await;
    }
    let job = queue.submit().await;

    let mut cleared = Vec::new();
    let found = loop {
        let granted = queue.take("w", 100).await;
        cleared.push(granted.stale);
        if let [claim] = claims(&granted)[..] {
            break claim.job_id;
        }
    };

    assert_eq!((found, cleared.iter().sum::<u64>()), (job, 500));
    assert!(cleared.iter().all(|stale| *stale <= MOST_CLEARED as u64), "{cleared:?}");
}

pub(crate) async fn cycles_of_jobs_that_expire_leave_no_memory_behind(queue: &Queue) {
    let queue = queue.with_policy(|policy| {
        policy.result_ttl = Duration::from_secs(1);
        policy.max_dead_letters = 10;
    });
    let mut used = Vec::new();
    for _ in 0..5 {
        let submitted = join_all((0..400).map(|_| queue.submit())).await;
        for id in &submitted[..20] {
            queue.store.intake.cancel(*id, View::All).await.unwrap();
        }
        let granted = queue.claims("w", 1_000).await;
        let settlements: Vec<_> = granted
            .iter()
            .enumerate()
            .map(|(number, claim)| (*claim, if number % 10 == 0 { fail() } else { complete() }))
            .collect();
        assert_eq!(queue.store.work.settle(&settlements).await.unwrap().len(), 380);
        eventually(SOON, "all jobs to expire", async || {
            let left = queue.all_keys().await.into_iter().filter(|key| key.contains(":job:")).count();
            if left == 0 { Ok(()) } else { Err(format!("{left} jobs")) }
        })
        .await;
        assert_eq!(queue.store.work.sweep(0, None, 1_000).await.unwrap().forgotten, 400);
        used.push(memory(&queue).await);
    }

    // The first cycle makes the streams and the groups. The buffers of busy clients, and of nodes of a cluster, shrink when these have
    // been idle.
    let least = used[1..].iter().min().unwrap();
    let most = if queue.servers.is_cluster() { 64 * 1024 } else { 32 * 1024 };
    eventually(SOON, "no more memory than before", async || {
        let grown = memory(&queue).await.saturating_sub(*least);
        if grown < most { Ok(()) } else { Err(format!("{grown} bytes more than the least of {used:?}")) }
    })
    .await;
    assert_eq!(queue.outstanding().await, (0, 0));
}

as_tests![
    a_backlog_of_200_000_jobs_drains_in_short_steps,
    due_entries_among_many_pending_ones_are_all_found_once,
    one_call_clears_away_a_bounded_number_of_stale_entries,
    cycles_of_jobs_that_expire_leave_no_memory_behind,
];
