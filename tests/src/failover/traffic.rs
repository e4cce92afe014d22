//! Clients that submit jobs at a steady rate, whether or not earlier ones were answered. A client with an Idempotency-Key repeats
//! its request until it knows; one without tries once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::Options;
use super::ledger::Ledger;
use super::stack::Stack;
use crate::http::NoAnswer;

/// The pause before a request is repeated.
const PAUSE: Duration = Duration::from_millis(200);
/// A client that still repeats its request this long after the faults is stuck.
const END_WITHIN: Duration = Duration::from_secs(60);
/// One of so many keyed requests is repeated although it was answered.
const REPEATED: u64 = 10;

/// The clients.
#[derive(Debug)]
pub(super) struct Traffic {
    is_over: Arc<AtomicBool>,
    clients: JoinHandle<usize>,
}

pub(super) fn start(stack: &Arc<Stack>, ledger: &Arc<Ledger>, options: &Options) -> Traffic {
    let is_over = Arc::new(AtomicBool::new(false));
    let submitting = submit_all(Arc::clone(stack), Arc::clone(ledger), options.rate, Arc::clone(&is_over));
    Traffic { is_over, clients: tokio::spawn(submitting) }
}

impl Traffic {
    /// Starts no more submissions, and waits for those in progress. Returns the number of clients that are stuck.
    pub(super) async fn stop(self) -> usize {
        self.is_over.store(true, Ordering::Relaxed);
        self.clients.await.expect("no client panics")
    }
}

async fn submit_all(stack: Arc<Stack>, ledger: Arc<Ledger>, rate: f64, is_over: Arc<AtomicBool>) -> usize {
    let mut ticks = interval(Duration::from_secs_f64(1.0 / rate));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut clients = JoinSet::new();
    for serial in 0_u64.. {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        ticks.tick().await;
        clients.spawn(submit(Arc::clone(&stack), Arc::clone(&ledger), serial));
        while clients.try_join_next().is_some() {}
    }
    let ended = timeout(END_WITHIN, async { while clients.join_next().await.is_some() {} }).await;
    if ended.is_ok() { 0 } else { clients.len() }
}

async fn submit(stack: Arc<Stack>, ledger: Arc<Ledger>, serial: u64) {
    // Of each four: two of each proxy, one of these with a key.
    let key = (serial / 2).is_multiple_of(2).then(|| format!("failover-{serial}"));
    let mut is_accepted = attempt(&stack, &ledger, serial, key.as_deref()).await;
    if key.is_none() {
        return;
    }
    let mut number = serial;
    while !is_accepted {
        sleep(PAUSE).await;
        number += 1;
        is_accepted = attempt(&stack, &ledger, number, key.as_deref()).await;
    }
    if serial.is_multiple_of(REPEATED) {
        attempt(&stack, &ledger, number + 1, key.as_deref()).await;
    }
}

/// Sends a request once. Returns whether it was accepted.
async fn attempt(stack: &Stack, ledger: &Ledger, number: u64, key: Option<&str>) -> bool {
    let client = stack.client(number as usize);
    let header = key.map(|key| ("idempotency-key", key));
    let began = Instant::now();
    let answer = client.try_predict(&rows(key), header.as_slice()).await;
    let mut book = ledger.book();
    book.slowest = book.slowest.max(began.elapsed());
    match answer {
        Ok(answer) if answer.status == 202 => {
            let body = answer.json();
            book.accept(body["job_id"].as_str().unwrap_or_default(), key);
            return true;
        }
        Ok(answer) => {
            let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            let kind = body["type"].as_str().unwrap_or_default().rsplit('/').next().unwrap_or_default();
            book.refuse(format!("{} {kind}", answer.status));
        }
        Err(NoAnswer::NotSent(_)) => book.refuse("no connection".to_owned()),
        Err(NoAnswer::Unknown(_)) => book.refuse("no answer".to_owned()),
    }
    false
}

/// A flower; always the same for a key.
fn rows(key: Option<&str>) -> Value {
    let number = key.map_or_else(|| fastrand::u64(..), |key| key.bytes().map(u64::from).sum());
    json!([[4.0 + (number % 40) as f64 / 10.0, 3.5, 1.4, (1 + number % 25) as f64 / 10.0]])
}
