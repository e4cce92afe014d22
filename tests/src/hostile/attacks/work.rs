//! Requests that cost the proxy and Redis much work, or have large answers.

use std::time::Duration;

use serde_json::json;
use tokio::time::timeout;

use super::super::field::{Field, Volley};
use super::super::wire::{get, head_of, post};

/// A job is usually stored by then, and has not ended.
const STORED: Duration = Duration::from_millis(1);

fn lookup(ids: &[String]) -> Vec<u8> {
    post("/jobs/lookup", json!({ "job_ids": ids }).to_string().as_bytes())
}

/// 4 kB that request 10 MB.
pub(super) async fn repeated_ids(field: &Field) {
    let ids = vec![field.seeds.large.first().expect("a large job").clone(); 100];
    field.never_read(95, &Volley::one(lookup(&ids))).await;
}

/// Answers of nearly 8 MiB.
pub(super) async fn large_answers(field: &Field) {
    field.never_read(10, &Volley::one(lookup(&field.seeds.large))).await;
}

/// 1,000 jobs for each request.
pub(super) async fn lookups(field: &Field) {
    field.hammer(2, &Volley::one(lookup(&field.seeds.small)).costing(21)).await;
}

/// Pages without a match, of which each reads 10,000 jobs.
pub(super) async fn listings(field: &Field) {
    field.hammer(2, &Volley::one(get("/jobs?status=failed&limit=1000", "")).costing(21)).await;
}

/// Requests that are not counted.
pub(super) async fn contract(field: &Field) {
    field.hammer(5, &Volley::one(get("/openapi.json", "")).costing(0).pipelined(200)).await;
}

/// Requests for pages that are made anew from time to time.
pub(super) async fn probes(field: &Field) {
    let both = [get("/metrics", ""), get("/health", "")].concat();
    let volley = Volley { requests: 200, ..Volley::one(both).costing(0).pipelined(100) };
    field.hammer(5, &volley).await;
}

/// Requests without an operation.
pub(super) async fn unmatched(field: &Field) {
    let methods = Volley::one(head_of("DELETE /predict", "").into_bytes()).pipelined(50);
    let paths = Volley::one(get("/no/such/path", "")).pipelined(50);
    tokio::join!(field.hammer(1, &methods), field.hammer(1, &paths));
}

/// Submissions beyond the limit.
pub(super) async fn flood(field: &Field) {
    let submission = post("/predict", br#"{"data":[[5.1,3.5,1.4,0.2]]}"#);
    field.hammer(1, &Volley::one(submission).pipelined(20)).await;
}

/// Requests that last a minute.
pub(super) async fn waits(field: &Field) {
    let path = format!("/job/{}", field.seeds.held);
    field.hammer(90, &Volley::one(get(&path, "prefer: wait=60\r\n"))).await;
}

/// Calls whose connections are closed as soon as their jobs may be stored, so that each is cancelled.
pub(super) async fn abandoned_calls(field: &Field) {
    let tensor = r#"{"name":"input","shape":[1,4],"datatype":"FP32","data":[5.1,3.5,1.4,0.2]}"#;
    let call = post("/v2/models/iris/infer", format!(r#"{{"inputs":[{tensor}]}}"#).as_bytes());
    field
        .each_address(4, |field, from| {
            let call = call.clone();
            async move {
                while !field.is_over() {
                    let Some(mut wire) = field.open(from).await else { continue };
                    field.tally.sent(call.len());
                    if wire.send(&call).await.is_err() {
                        field.tally.note("connection closed");
                        continue;
                    }
                    match timeout(STORED, wire.some()).await {
                        Ok(_) => field.tally.note("answered"),
                        Err(_) => field.tally.note("abandoned"),
                    }
                }
            }
        })
        .await;
}
