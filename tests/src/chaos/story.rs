//! One client: submits a job, and perhaps reads, cancels, follows or requeues it. It records every answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::models::{self, ModelKind};
use super::order::Order;
use super::rng::Rng;
use super::stack::ProxyNode;
use super::{Options, Stack};
use crate::history::{Event, Recorder, now_us};
use crate::http::{Answer, Bytes, Method, NoAnswer, is_terminal};

/// How often a client with an idempotency key repeats its request until it has an answer.
const TRIES: u32 = 8;
const FOLLOWED_FOR: Duration = Duration::from_secs(20);

/// One job's client.
pub(super) struct Story {
    stack: Arc<Stack>,
    recorder: Recorder,
    rng: Rng,
    order: Order,
}

/// Counts a request while it is under way, also when it is abandoned.
struct InFlight<'a>(&'a AtomicU64);

impl<'a> InFlight<'a> {
    fn enter(count: &'a AtomicU64) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ProxyNode {
    async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer, NoAnswer> {
        let _in_flight = InFlight::enter(&self.in_flight);
        self.client.try_request(method, path, headers, body).await
    }
}

impl Story {
    pub(super) fn new(stack: Arc<Stack>, recorder: Recorder, options: &Options, serial: u64) -> Self {
        let mut rng = Rng::new(options.seed, serial);
        let order = Order::draw(&mut rng, options.seed, serial);
        let order = if options.only.is_empty() { order } else { order.patient() };
        Self { stack, recorder, rng, order }
    }

    pub(super) async fn run(mut self) {
        if self.rng.chance(0.01) {
            self.submit_nonsense().await;
        }
        let submitted = if self.order.key.is_some() { self.insist().await } else { self.submit_once().await };
        let Some(id) = submitted else { return };
        if self.rng.chance(0.4) {
            sleep(self.rng.millis(0..2_500)).await;
            self.read(&id).await;
        } else if self.rng.chance(0.15) {
            sleep(self.rng.millis(0..800)).await;
            if self.cancel(&id).await && self.rng.chance(0.3) {
                self.run_again(&id).await;
            }
        } else if self.rng.chance(0.3) {
            self.follow(&id).await;
        }
        if self.rng.chance(0.01) {
            let _ = self.proxy().ask(Method::GET, "/jobs?limit=20", &[], "").await;
        }
    }

    fn proxy(&mut self) -> &ProxyNode {
        let index = self.rng.index(self.stack.proxies.len());
        &self.stack.proxies[index]
    }

    /// A submission that must be refused, and of which nothing may remain.
    async fn submit_nonsense(&mut self) {
        let nonsense =
            models::input(ModelKind::ALL[self.rng.index(3)], serde_json::json!([[[1, 2], [3, 4]]]));
        self.submit_to(self.rng.clone().index(self.stack.proxies.len()), &nonsense, None).await;
    }

    /// Without a key, a client that does not know the outcome of its submission cannot find it out.
    async fn submit_once(&mut self) -> Option<String> {
        for _ in 0..3 {
            let index = self.rng.index(self.stack.proxies.len());
            let input = self.order.input.clone();
            match self.submit_to(index, &input, None).await {
                Event::Submitted { id, .. } => return Some(id),
                Event::Refused { .. } => sleep(self.rng.millis(100..600)).await,
                _ => return None,
            }
        }
        None
    }

    /// With a key, a client repeats the submission until it knows. Some send it to both proxies at the same time.
    async fn insist(&mut self) -> Option<String> {
        let (input, key) = (self.order.input.clone(), self.order.key.clone());
        for try_number in 1..=TRIES {
            let index = self.rng.index(self.stack.proxies.len());
            let first = self.submit_to(index, &input, key.as_deref());
            let events = if self.rng.clone().chance(0.1) {
                let other = (index + 1) % self.stack.proxies.len();
                let (first, second) = tokio::join!(first, self.submit_to(other, &input, key.as_deref()));
                vec![first, second]
            } else {
                vec![first.await]
            };
            let accepted = events.into_iter().find_map(|event| match event {
                Event::Submitted { id, .. } => Some(id),
                _ => None,
            });
            if accepted.is_some() {
                return accepted;
            }
            sleep(self.rng.millis(200..1_200) * try_number).await;
        }
        None
    }

    async fn submit_to(&self, proxy: usize, input: &serde_json::Value, key: Option<&str>) -> Event {
        let body = Order { input: input.clone(), ..self.order.clone() }.body();
        let mut headers = vec![("content-type", "application/json")];
        headers.extend(key.map(|key| ("idempotency-key", key)));
        let began_us = now_us();
        let answer = self.stack.proxies[proxy].ask(Method::POST, "/predict", &headers, body).await;
        let event = Event::of_submit(&answer, input, key);
        self.recorder.record(began_us, event.clone());
        event
    }

    /// Reads the job; `None` without a usable answer.
    async fn read(&mut self, id: &str) -> Option<serde_json::Value> {
        let patience: &[(&str, &str)] = if self.rng.chance(0.2) { &[("prefer", "wait=1")] } else { &[] };
        let began_us = now_us();
        let answer = self.proxy().ask(Method::GET, &format!("/job/{id}"), patience, "").await.ok()?;
        if !matches!(answer.status, 200 | 404) {
            return None;
        }
        let body = models::shortened(answer.json());
        let event = Event::Observed { id: id.to_owned(), status: answer.status, body: body.clone() };
        self.recorder.record(began_us, event);
        Some(body)
    }

    /// Returns whether the cancel was acknowledged.
    async fn cancel(&mut self, id: &str) -> bool {
        let began_us = now_us();
        let answer = self.proxy().ask(Method::DELETE, &format!("/job/{id}"), &[], "").await;
        let is_acked = answer.is_ok_and(|answer| answer.status == 200);
        if is_acked {
            self.recorder.record(began_us, Event::CancelAcked { id: id.to_owned() });
        }
        is_acked
    }

    /// Reads until the job has ended, and once more a while later. Requeues some of the jobs without a result.
    async fn follow(&mut self, id: &str) {
        let give_up = Instant::now() + FOLLOWED_FOR;
        while Instant::now() < give_up {
            sleep(self.rng.millis(300..700)).await;
            let Some(body) = self.read(id).await.filter(is_terminal) else { continue };
            if body["status"] != "completed" && self.rng.chance(0.7) {
                self.run_again(id).await;
            }
            sleep(self.rng.millis(100..3_000)).await;
            self.read(id).await;
            return;
        }
    }

    async fn run_again(&mut self, id: &str) {
        let began_us = now_us();
        let answer = self.proxy().ask(Method::POST, &format!("/job/{id}/retry"), &[], "").await;
        let event = match Event::of_submit(&answer, &self.order.input, None) {
            Event::SubmitUnknown { .. } => Event::RequeueUnknown { of: id.to_owned() },
            known => known,
        };
        self.recorder.record(began_us, event);
    }
}
