//! The table of all transitions, `transitions.txt`: every script in every state.

use std::{fmt::Debug, time::Duration};

use tepal_shared::{
    job::{Claim, JobId, NewJob, Priority, Stream, owner::View},
    queue::{
        intake::Cancelled,
        work::{Granted, Settled, Settlement, TakeRequest},
    },
};

use crate::{
    queue::{ANYONE, Queue, all, claims, complete, fail, new_job, other, stream},
    snapshot::Snapshot,
};

const TABLE: &str = include_str!("transitions.txt");
const STATES: [&str; 17] = [
    "missing",
    "new",
    "delivered",
    "left",
    "waiting",
    "due",
    "released",
    "ours",
    "lapsed",
    "theirs",
    "late",
    "overdue",
    "completed",
    "completed by them",
    "failed",
    "timed out",
    "cancelled",
];
const SCRIPTS: [&str; 11] = [
    "submit", "take", "start", "renew", "complete", "retry", "release", "fail", "cancel", "requeue", "expire",
];

/// One line below a state's own line.
#[derive(Debug)]
struct Row {
    state: &'static str,
    before: &'static str,
    script: &'static str,
    outcome: &'static str,
    after: &'static str,
}

fn rows() -> Vec<Row> {
    let mut head = ("", "");
    let mut rows = Vec::new();
    for line in TABLE.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let Some(row) = line.strip_prefix("  ") else {
            head = line.split_once(": ").unwrap();
            continue;
        };
        let (script, row) = row.split_once(' ').unwrap();
        let (outcome, after) = row.split_once('|').unwrap();
        let (state, before) = head;
        let after = if after.trim() == "same" { before } else { after.trim() };
        rows.push(Row { state, before, script, outcome: outcome.trim(), after });
    }
    rows
}

#[test]
fn the_table_has_each_script_in_each_state_once() {
    let expected = STATES.iter().flat_map(|state| SCRIPTS.iter().map(move |script| (*state, *script)));
    let rows = rows();
    let listed = rows.iter().map(|row| (row.state, row.script));
    assert_eq!(listed.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
}

pub(crate) async fn every_script_does_in_every_state_what_the_table_says(queue: &Queue) {
    let mut wrong = Vec::new();
    for row in rows() {
        let queue = queue.another();
        let others = submit_others(&queue).await;
        let subject = Subject::arrange(&queue, row.state).await;
        let before = queue.state(subject.id()).await;
        let outcome = subject.apply(&queue, row.script).await;
        let seen = Snapshot::read(&queue, &[subject.id()]).await;
        let after = seen.state(subject.id());
        if (before.as_str(), outcome.as_str(), after.as_str()) != (row.before, row.outcome, row.after) {
            wrong.push(format!("{row:#?}\nbut before: {before}\noutcome: {outcome}\nafter: {after}"));
        }
        let added = u64::from(row.script == "requeue" && row.outcome == "Accepted");
        let in_stream = !after.contains(" - ") && after != "missing";
        assert_eq!(seen.length(), OTHERS.len() as u64 + added + u64::from(in_stream), "{row:#?}");
        assert_eq!(others_state(&queue, &others).await, OTHERS, "{row:#?}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

as_tests![every_script_does_in_every_state_what_the_table_says];

/// The state of [`submit_others`], which no script of another model changes.
const OTHERS: [(&str, u64); 2] = [("pending", 0), ("processing", 1)];

/// Jobs of another model: one waits, one runs.
async fn submit_others(queue: &Queue) -> [JobId; 2] {
    let job = NewJob { model: other(), ..new_job() };
    let running = queue.submit_job(&job).await;
    let request = TakeRequest { streams: &Stream::all_of(other()), ..all("others") };
    assert_eq!(granted_text(&queue.store.work.take(&request).await.unwrap()), "granted 1");
    [queue.submit_job(&job).await, running]
}

/// The status of these jobs, and how many of their entries are pending.
async fn others_state(queue: &Queue, jobs: &[JobId; 2]) -> [(&'static str, u64); 2] {
    let [_, stream, _] = queue.store.queue.keys().streams(0, other());
    let mut states = [("", 0); 2];
    for (state, id) in states.iter_mut().zip(jobs) {
        let entry = queue.field(*id, "entry").await.unwrap();
        let pending: redis::Value =
            queue.redis(&["XPENDING", &stream, "workers", &entry, &entry, "1", "others"]).await;
        let is_pending = !matches!(pending, redis::Value::Array(entries) if entries.is_empty());
        *state = (queue.job(*id).await.status.as_str(), u64::from(is_pending));
    }
    states
}

/// The job of a row, and its attempt with token 1, which may not exist.
struct Subject {
    attempt: Claim,
}

impl Subject {
    fn id(&self) -> JobId {
        self.attempt.job_id
    }

    /// Brings a job of `queue` into the state.
    async fn arrange(queue: &Queue, state: &str) -> Self {
        // The groups exist, as after the first take of a worker.
        queue.take("taker", 1).await;
        if state == "missing" {
            return Self { attempt: never_granted(JobId::new(0)) };
        }
        let id = queue.submit().await;
        match state {
            "new" => {}
            "delivered" => queue.deliver("us").await,
            "left" => {
                queue.deliver("us").await;
                assert_eq!(
                    granted_text(
                        &queue.store.work.start(0, "us", &Priority::ALL.map(stream), 0).await.unwrap()
                    ),
                    "nothing"
                );
            }
            "late" => queue.set_field(id, "queue_deadline", "1").await,
            _ => {
                let attempt = queue.take_one("us").await;
                Self::carry_on(queue, state, &attempt).await;
                return Self { attempt };
            }
        }
        Self { attempt: never_granted(id) }
    }

    /// From `ours` to the states that come after it.
    async fn carry_on(queue: &Queue, state: &str, ours: &Claim) {
        let id = ours.job_id;
        let settlement = match state {
            "waiting" => Settlement::Retry(queue.store.queue.policy().lease),
            "due" => Settlement::Retry(Duration::ZERO),
            "released" => Settlement::Release,
            "completed" => complete(),
            "failed" => fail(),
            "ours" => return,
            "lapsed" => return queue.age("us").await,
            "theirs" | "completed by them" => {
                queue.age("us").await;
                let theirs = queue.take_one("them").await;
                if state != "theirs" {
                    assert_done(queue.settle(&theirs, complete()).await);
                }
                return;
            }
            "overdue" | "timed out" => {
                queue.set_field(id, "run_deadline", "1").await;
                if state != "overdue" {
                    queue.store.intake.expire(id).await.unwrap();
                }
                return;
            }
            "cancelled" => {
                queue.store.intake.cancel(id, View::All).await.unwrap();
                return;
            }
            other => panic!("no such state: {other}"),
        };
        assert_done(queue.settle(ours, settlement).await);
    }

    /// Runs the script. Returns its outcome as text.
    async fn apply(&self, queue: &Queue, script: &str) -> String {
        let (store, id) = (&queue.store, self.id());
        match script {
            "submit" => text_of(store.intake.submit(id, new_job()).await.unwrap()),
            "take" => granted_text(&store.work.take(&all("taker")).await.unwrap()),
            "start" => granted_text(
                &store.work.start(0, "us", &Priority::ALL.map(stream), usize::MAX).await.unwrap(),
            ),
            "renew" => {
                let gone = store.work.renew(0, "us", &[never_granted(id)]).await.unwrap();
                gone.first().map_or_else(|| "held".to_owned(), |(_, fence)| text_of(fence))
            }
            "complete" => settled_text(queue.settle(&self.attempt, complete()).await),
            "retry" => {
                let delay = queue.store.queue.policy().lease / 2;
                settled_text(queue.settle(&self.attempt, Settlement::Retry(delay)).await)
            }
            "release" => settled_text(queue.settle(&self.attempt, Settlement::Release).await),
            "fail" => settled_text(queue.settle(&self.attempt, fail()).await),
            "cancel" => cancelled_text(store.intake.cancel(id, View::All).await.unwrap()),
            "requeue" => text_of(store.intake.requeue(id, JobId::new(0), ANYONE).await.unwrap()),
            "expire" => text_of(store.intake.expire(id).await.unwrap()),
            other => panic!("no such script: {other}"),
        }
    }
}

fn assert_done(settled: Settled) {
    assert_eq!(settled, crate::queue::DONE);
}

fn never_granted(job_id: JobId) -> Claim {
    Claim { job_id, token: 1, stream: stream(Priority::Normal) }
}

fn text_of(outcome: impl Debug) -> String {
    format!("{outcome:?}")
}

fn cancelled_text(cancelled: Cancelled) -> String {
    match cancelled {
        Cancelled::Done(Some(_)) => "Done".to_owned(),
        other => text_of(other),
    }
}

fn settled_text(settled: Settled) -> String {
    match settled {
        Settled::Done { repaired: false } => "Done".to_owned(),
        other => text_of(other),
    }
}

/// The only claim, failure or deleted entry, as text.
fn granted_text(granted: &Granted) -> String {
    let grants = claims(granted).into_iter().map(|claim| format!("granted {}", claim.token));
    let ended = granted.ended.iter().map(|job| format!("failed {}", job.code));
    let stale = (0..granted.stale).map(|_| "stale".to_owned());
    grants.chain(ended).chain(stale).next().unwrap_or_else(|| "nothing".to_owned())
}
