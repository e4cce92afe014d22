//! Checks after each fault, and at the end, that nothing is stuck, and counts what is lost.

use std::fmt;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::faults::Struck;
use super::ledger::{Book, Ledger};
use super::stack::Stack;

/// A lease lapses, and the job is reclaimed and runs.
const ENDED_WITHIN: Duration = Duration::from_secs(30);
const READY_WITHIN: Duration = Duration::from_secs(10);
/// Proxies look for lost jobs once a second, workers every five seconds.
const NOTICED_AFTER: Duration = Duration::from_secs(2);
/// A job may be lost by a fault that began shortly after it was accepted.
const BEFORE: Duration = Duration::from_secs(1);

/// A fault and what it did.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) struck: Struck,
    /// The longest time without an accepted submission.
    pub(super) outage: Duration,
    /// The same for the partitions of other primaries.
    pub(super) outage_elsewhere: Option<Duration>,
    /// How long jobs of other primaries waited that were accepted before the failover: p99 and the longest.
    pub(super) waits_elsewhere: Option<(Duration, Duration)>,
    pub(super) lost: usize,
    /// Jobs that ran again since the fault before, with an equal result.
    pub(super) ran_again: usize,
    /// The most that one proxy reported, and one worker.
    pub(super) reported: (u64, u64),
    pub(super) problems: Vec<String>,
}

impl Checked {
    /// Waits until all jobs that were accepted before have ended, and counts.
    pub(super) async fn after(struck: Struck, stack: &Stack, ledger: &Ledger) -> Self {
        let (gone, before) = ledger.so_far();
        let mut problems = not_ready(stack).await;
        problems.extend(not_ended(ledger, struck.whole).await);
        let concerned = ledger.since(struck.began.checked_sub(BEFORE));
        look_up(stack, ledger, &concerned).await;
        sleep(NOTICED_AFTER).await;
        let reported = stack.reported().await;
        let lost = ledger.gone();
        let mut book = ledger.book();
        (book.lost_before, book.reported_before) = (lost, reported.clone());
        let all_again = book.ran_again.len();
        let ran_again = all_again - std::mem::replace(&mut book.ran_again_before, all_again);
        let (from, to) = (struck.began, struck.whole);
        let is_elsewhere = |partition: u8| struck.elsewhere.contains(&partition);
        let is_spared = !struck.elsewhere.is_empty() && struck.fault.spares_others();
        let waits = book.waits(from, struck.replaced, is_elsewhere);
        let waits = waits.last().map(|longest| (waits[waits.len() * 99 / 100], *longest));
        let new = |now: &[u64], before: &[u64]| {
            let before = before.iter().copied().chain(std::iter::repeat(0));
            now.iter().zip(before).map(|(now, before)| now.saturating_sub(before)).max().unwrap_or_default()
        };
        Self {
            outage: book.longest_gap(from, to, |_| true),
            outage_elsewhere: is_spared.then(|| book.longest_gap(from, to, is_elsewhere)),
            waits_elsewhere: waits.filter(|_| is_spared),
            lost: lost.saturating_sub(gone),
            ran_again,
            reported: (new(&reported.0, &before.0), new(&reported.1, &before.1)),
            problems,
            struck,
        }
    }
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { struck, outage, outage_elsewhere, lost, reported, problems, .. } = self;
        let after = |time: Instant| time - struck.began;
        let (replaced, accepting, whole) =
            (after(struck.replaced), after(struck.accepting), after(struck.whole));
        write!(
            f,
            "{}: replaced after {replaced:.1?}, has its replicas after {accepting:.1?}, whole after {whole:.1?}, outage {outage:.2?}, of others \
             {outage_elsewhere:.2?}, lost {lost}, reported {reported:?} {problems:?}",
            struck.fault.name()
        )
    }
}

/// Everything that is wrong at the end.
#[derive(Debug, Default)]
pub(super) struct Last {
    pub(super) problems: Vec<String>,
    pub(super) completed: usize,
    pub(super) accepted: usize,
}

/// Reads every accepted job once more.
pub(super) async fn last(stack: &Stack, ledger: &Ledger, stuck_clients: usize) -> Last {
    let mut problems = not_ready(stack).await;
    problems.extend(not_ended(ledger, Instant::now()).await);
    look_up(stack, ledger, &ledger.since(None)).await;
    if stuck_clients > 0 {
        problems.push(format!("{stuck_clients} clients repeat their requests for ever"));
    }
    let mut book = ledger.book();
    problems.append(&mut book.violations);
    let wrong =
        book.refused.iter().filter(|(answer, _)| !answer.starts_with("503") && !answer.starts_with("no "));
    problems.extend(wrong.map(|(answer, times)| format!("{times} submissions were answered {answer}")));
    let ended = |book: &Book| book.jobs.values().filter(|seen| !seen.is_gone && seen.ended.is_some()).count();
    let failures = book.jobs.iter().filter_map(|(id, seen)| Some((id, seen.ended.as_ref()?.failure()?)));
    problems.extend(failures.map(|(id, why)| format!("{id} failed: {why}")));
    let unfinished = book.jobs.iter().filter(|(_, seen)| !seen.is_gone && !is_end(&seen.status));
    problems.extend(unfinished.map(|(id, seen)| format!("{id} is stuck: {}", seen.status)));
    let of_two = book.keys.iter().filter(|(_, ids)| {
        ids.iter().filter(|id| book.jobs.get(*id).is_some_and(|seen| !seen.is_gone)).count() > 1
    });
    problems.extend(of_two.map(|(key, ids)| format!("the key {key} led to {ids:?}")));
    Last { problems, completed: ended(&book), accepted: book.jobs.len() }
}

fn is_end(status: &str) -> bool {
    crate::http::TERMINAL.contains(&status)
}

/// Reads these jobs, and those that are not found once more: a proxy may have read a former primary.
async fn look_up(stack: &Stack, ledger: &Ledger, ids: &[String]) {
    let looked = stack.look_up(0, ids).await;
    let gone = looked.not_found.clone();
    ledger.book().read(&looked);
    let again = stack.look_up(1, &gone).await;
    ledger.book().read(&again);
}

async fn not_ready(stack: &Stack) -> Vec<String> {
    let mut problems = Vec::new();
    for (number, proxy) in stack.proxies.iter().enumerate() {
        let client = proxy.client().with_timeout(Duration::from_secs(2));
        let ready = crate::wait::poll(READY_WITHIN, || async {
            client.try_get("/readyz").await.is_ok_and(|answer| answer.status == 200)
        });
        if let Err(why) = ready.await {
            problems.push(format!("proxy {number} is not ready: {why}"));
        }
    }
    problems
}

/// The jobs that were accepted before that time and do not end.
async fn not_ended(ledger: &Ledger, before: Instant) -> Option<String> {
    let ended = crate::wait::poll(ENDED_WITHIN, || async {
        let open = ledger.open_before(before);
        if open.is_empty() { Ok(()) } else { Err(format!("{} jobs, such as {}", open.len(), open[0])) }
    });
    ended.await.err().map(|why| format!("jobs do not end: {why}"))
}
