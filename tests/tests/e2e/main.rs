//! The whole gateway with its real programs: HTTP in, Redis Streams, workers, a model, results out. Each crate tests its own
//! part; random faults are in `tests/chaos`.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a failing step fails the test")]

mod flowers;
mod generality;
mod iris;
mod log_output;
mod logs;
mod outages;
mod redis_state;
mod run;
mod saved_models;
mod secured;
mod sharing;
mod tensors;
mod up;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tepal_tests::http::Client;
use tepal_tests::wait::eventually;

/// Long enough for debug builds on a loaded machine. No passing test waits this long.
const SOON: Duration = Duration::from_secs(30);

/// The checkout.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn models() -> PathBuf {
    root().join("compose/models")
}

/// Waits until `GET /health` answers 200.
async fn healthy(client: &Client) {
    health(client, 200).await;
}

/// Waits until `GET /health` answers with this status; returns its components.
async fn health(client: &Client, status: u16) -> Value {
    eventually(SOON, "/health to change", async || match client.try_get("/health").await {
        Ok(answer) if answer.status == status => Ok(answer.json()["components"].clone()),
        Ok(answer) => Err(answer.text()),
        Err(error) => Err(error.to_string()),
    })
    .await
}

/// Submits one job for each of the rows, in order; returns their ids.
async fn submit_each(client: &Client, rows: &[Value]) -> Vec<String> {
    let mut ids = Vec::new();
    for row in rows {
        ids.push(client.predict(&Value::from(vec![row.clone()])).await);
    }
    ids
}

/// Waits until all jobs are finished; returns their bodies, in order.
async fn finished(client: &Client, ids: &[String]) -> Vec<Value> {
    let mut jobs = Vec::new();
    for id in ids {
        jobs.push(client.finished(id, SOON).await);
    }
    jobs
}
