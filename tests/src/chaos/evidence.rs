//! After the faults: waits until every job has ended, reads everything back through the API and from Redis, adds what
//! the workers logged, and runs the checker.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::holdings;
use super::models::{oracle, shortened};
use super::{Faults, Options, Stack};
use crate::history::{Event, Final, History, Recorder, Rules, Verdict, now_us, worker_events};
use crate::http::Method;
use crate::wait::poll;

/// Reads under way at a time.
const READERS: usize = 16;

/// The evidence of a run.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) history: History,
    pub(super) verdict: Verdict,
    /// From the end of the faults until no job was outstanding; `None` when some still were.
    pub(super) settled_after: Option<Duration>,
    /// Problems that make the evidence incomplete.
    pub(super) problems: Vec<String>,
}

/// Collects the evidence and checks it. `halfway` was read during the run.
pub(super) async fn gather(
    stack: &Arc<Stack>,
    recorder: &Recorder,
    options: &Options,
    halfway: Final,
) -> Found {
    let mut problems = Vec::new();
    let since = Instant::now();
    let settled = poll(options.settle_within, || async { nothing_outstanding(stack).await }).await;
    let settled_after = settled.is_ok().then(|| since.elapsed());
    problems.extend(settled.err().map(|gave_up| format!("jobs are still outstanding: {gave_up}")));

    let at_rest = stack.dump().await;
    let unread = read_all(stack, recorder).await;
    if unread > 0 {
        problems.push(format!("{unread} accepted jobs could not be read through the API at the end"));
    }
    let mut last = stack.dump().await;
    last.repairs = stack.repairs().await;
    let mut records = recorder.records();
    for node in &stack.workers {
        records.extend(worker_events(&node.process.logs().json()));
    }
    let history = History { records, earlier: vec![halfway, at_rest], last };
    let verdict = history.check(rules(options), oracle);
    Found { history, verdict, settled_after, problems }
}

fn rules(options: &Options) -> Rules {
    // A worker that was frozen right after a claim logs the start of those jobs only when it continues.
    let log_delay = if options.faults == Faults::All {
        options.lease * 2 + Duration::from_secs(5)
    } else {
        Duration::from_secs(2)
    };
    Rules { log_delay, ..Rules::default() }
}

async fn nothing_outstanding(stack: &Stack) -> Result<(), String> {
    let mut connection = stack.redis_connection().await.map_err(|error| error.to_string())?;
    match holdings::outstanding(&mut connection).await {
        Ok(0) => Ok(()),
        Ok(count) => Err(format!("{count} jobs")),
        Err(error) => Err(error.to_string()),
    }
}

/// Reads every accepted job once more; returns how many reads had no answer.
async fn read_all(stack: &Arc<Stack>, recorder: &Recorder) -> usize {
    let accepted: BTreeSet<String> = recorder
        .records()
        .into_iter()
        .filter_map(|record| match record.event {
            Event::Submitted { id, .. } => Some(id),
            _ => None,
        })
        .collect();
    let ids: Arc<Vec<String>> = Arc::new(accepted.into_iter().collect());
    let next = Arc::new(AtomicUsize::new(0));
    let mut readers = JoinSet::new();
    for number in 0..READERS {
        let (stack, recorder) = (Arc::clone(stack), recorder.clone());
        let (ids, next) = (Arc::clone(&ids), Arc::clone(&next));
        readers.spawn(async move {
            let client = &stack.proxies[number % stack.proxies.len()].client;
            let mut unread = 0;
            while let Some(id) = ids.get(next.fetch_add(1, Ordering::Relaxed)) {
                let began_us = now_us();
                match client.try_request(Method::GET, &format!("/job/{id}"), &[], "").await {
                    Ok(answer) if matches!(answer.status, 200 | 404) => {
                        let (status, body) = (answer.status, shortened(answer.json()));
                        recorder.record(began_us, Event::Observed { id: id.clone(), status, body });
                    }
                    _ => unread += 1,
                }
            }
            unread
        });
    }
    readers.join_all().await.into_iter().sum()
}
