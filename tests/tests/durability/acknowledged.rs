//! Clients that remember every acknowledgement and every outcome.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::Value;
use tepal_tests::http::{Client, is_terminal};
use tepal_tests::wait::eventually;
use tokio::task::JoinSet;

use crate::{SOON, row};

/// Clients that submit one job after the other and read the one before it.
pub(crate) struct Clients {
    stop: Arc<AtomicBool>,
    accepted: Arc<AtomicUsize>,
    running: JoinSet<Acknowledged>,
}

/// The acknowledgements and outcomes that clients got.
#[derive(Debug, Default)]
pub(crate) struct Acknowledged {
    /// Ids of accepted jobs.
    pub(crate) accepted: Vec<String>,
    /// Jobs that had ended, as they were read.
    pub(crate) ended: Vec<Value>,
    /// Requests that were not accepted: the status and the code, or `None` without an answer.
    pub(crate) refused: Vec<(u16, String)>,
}

impl Clients {
    pub(crate) fn start(client: &Client, count: usize) -> Self {
        let (stop, accepted) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let mut running = JoinSet::new();
        for _ in 0..count {
            let (client, stop, accepted) = (client.clone(), Arc::clone(&stop), Arc::clone(&accepted));
            running.spawn(async move {
                let mut acknowledged = Acknowledged::default();
                while !stop.load(Ordering::Relaxed) {
                    acknowledged.one_more(&client).await;
                    accepted.fetch_max(acknowledged.accepted.len(), Ordering::Relaxed);
                }
                acknowledged
            });
        }
        Self { stop, accepted, running }
    }

    /// Waits until one of them has so many accepted jobs.
    pub(crate) async fn accepted(&self, count: usize) {
        let enough = async || self.accepted.load(Ordering::Relaxed) >= count;
        eventually(SOON, "accepted jobs", enough).await;
    }

    pub(crate) async fn stop(self) -> Acknowledged {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Acknowledged::default();
        for acknowledged in self.running.join_all().await {
            all.accepted.extend(acknowledged.accepted);
            all.ended.extend(acknowledged.ended);
            all.refused.extend(acknowledged.refused);
        }
        all
    }
}

impl Acknowledged {
    async fn one_more(&mut self, client: &Client) {
        match client.try_predict(&row(), &[]).await {
            Ok(answer) if answer.status == 202 => {
                self.accepted.push(answer.json()["job_id"].as_str().unwrap().to_owned());
            }
            Ok(answer) => {
                self.refused.push((answer.status, answer.json()["code"].as_str().unwrap().to_owned()))
            }
            Err(_) => self.refused.push((0, String::new())),
        }
        let Some(previous) = self.accepted.iter().nth_back(1) else { return };
        if let Ok(answer) = client.try_get(&format!("/job/{previous}")).await
            && answer.status == 200
            && is_terminal(&answer.json())
        {
            self.ended.push(answer.json());
        }
    }

    /// Every accepted job must exist and complete, and every outcome that was read must still be the same.
    pub(crate) async fn assert_kept(&self, client: &Client) {
        same_jobs(client, &self.ended).await;
        for id in &self.accepted {
            assert_eq!(client.finished(id, SOON).await["status"], "completed");
        }
    }
}

/// Every job reads as it did.
pub(crate) async fn same_jobs(client: &Client, jobs: &[Value]) {
    for job in jobs {
        let path = format!("/job/{}", job["job_id"].as_str().unwrap());
        let again = async || match client.get(&path).await {
            answer if answer.status == 503 => Err(answer.text()),
            answer => Ok((answer.status, answer.json())),
        };
        let (status, body) = eventually(SOON, "the proxy to reach Redis again", again).await;
        assert_eq!((status, &body), (200, job));
    }
}
