//! Traces: a real OTLP receiver, both services, and one job's trace from its client to its outcome.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod collector;

use std::time::Duration;

use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::json;
use tepal_tests::http::Method;
use tepal_tests::process::{Proxy, Worker};
use tepal_tests::redis::RedisServer;
use tepal_tests::wait::eventually;

use crate::collector::{Collector, text};

const SOON: Duration = Duration::from_secs(30);
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CLIENT_SPAN: &str = "00f067aa0ba902b7";

/// Submits the model's sample with that `traceparent` and waits for its end.
async fn finished_job(proxy: &Proxy, traceparent: &str) -> String {
    let headers = [("traceparent", traceparent)];
    let accepted = proxy.client().request(Method::POST, "/predict/test", &headers, "").await;
    assert_eq!(accepted.status, 202, "{}", accepted.text());
    let id = accepted.json()["job_id"].as_str().unwrap().to_owned();
    let path = format!("/job/{id}");
    eventually(SOON, "the job is completed", || async {
        proxy.client().get(&path).await.json()["status"] == json!("completed")
    })
    .await;
    id
}

#[tokio::test]
async fn one_trace_shows_the_whole_life_of_a_job() {
    let (redis, collector) = (RedisServer::shipped().start().await, Collector::start().await);
    let env = [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint()), ("OTEL_BSP_SCHEDULE_DELAY", "100")];
    let (proxy, worker) =
        (Proxy::start(&redis.proxy_url(), &env).await, Worker::start(&redis.worker_url(), &env).await);

    let id = finished_job(&proxy, &format!("00-{TRACE}-{CLIENT_SPAN}-01")).await;
    let names = ["submit", "wait", "batch", "attempt", "model call", "settle"];
    eventually(SOON, "every span has arrived", || async {
        names.iter().all(|name| collector.find(TRACE, name).is_some())
    })
    .await;

    let [submit, wait, batch, attempt, call, settle] = names.map(|name| collector.find(TRACE, name).unwrap());
    assert_eq!(submit.service, "tepal-proxy");
    assert_eq!(hex(&submit.span.parent_span_id), CLIENT_SPAN);
    for below_submit in [&wait, &batch, &attempt] {
        assert_eq!(below_submit.service, "tepal-worker");
        assert_eq!(below_submit.span.parent_span_id, submit.span.span_id, "{}", below_submit.span.name);
    }
    for below_attempt in [&call, &settle] {
        assert_eq!(below_attempt.span.parent_span_id, attempt.span.span_id, "{}", below_attempt.span.name);
    }
    assert_eq!(call.span.links[0].span_id, batch.span.span_id);
    assert_eq!(batch.span.links[0].span_id, submit.span.span_id);
    assert_eq!(text(&submit.span, "tepal.job_id"), id);
    assert_eq!(text(&attempt.span, "tepal.job_id"), id);
    assert_eq!(text(&attempt.span, "tepal.outcome"), "completed");
    assert!(in_order(&[&wait.span, &call.span, &settle.span]));
    drop(worker);
}

#[tokio::test]
async fn a_trace_that_its_client_does_not_record_is_not_sent_and_the_last_spans_leave_at_the_end() {
    let (redis, collector) = (RedisServer::shipped().start().await, Collector::start().await);
    // A running service would not export its spans within this test.
    let env = [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint()), ("OTEL_BSP_SCHEDULE_DELAY", "600000")];
    let (proxy, worker) =
        (Proxy::start(&redis.proxy_url(), &env).await, Worker::start(&redis.worker_url(), &env).await);
    let unrecorded = "5bf92f3577b34da6a3ce929d0e0e4737";
    finished_job(&proxy, &format!("00-{unrecorded}-{CLIENT_SPAN}-00")).await;
    finished_job(&proxy, &format!("00-{TRACE}-{CLIENT_SPAN}-01")).await;

    for service in [&*proxy, &*worker] {
        service.sigterm();
        assert!(service.wait_exit(SOON).await.success());
    }

    assert!(collector.find(TRACE, "submit").is_some());
    assert!(collector.find(TRACE, "settle").is_some());
    assert_eq!(collector.spans_of(unrecorded), 0);
}

#[tokio::test]
async fn a_receiver_that_is_away_costs_no_job() {
    let redis = RedisServer::shipped().start().await;
    let nobody = format!("http://127.0.0.1:{}", tepal_tests::ports::free_port());
    let env = [("OTEL_EXPORTER_OTLP_ENDPOINT", nobody.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "100")];
    let (proxy, worker) =
        (Proxy::start(&redis.proxy_url(), &env).await, Worker::start(&redis.worker_url(), &env).await);

    finished_job(&proxy, &format!("00-{TRACE}-{CLIENT_SPAN}-01")).await;

    eventually(SOON, "the log line", || async {
        worker.logs().find("BatchSpanProcessor.ExportError").is_some()
    })
    .await;
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether each span ends after it began, and begins no earlier than the one before it ended.
fn in_order(spans: &[&Span]) -> bool {
    spans.iter().all(|span| span.start_time_unix_nano <= span.end_time_unix_nano)
        && spans.windows(2).all(|pair| pair[0].end_time_unix_nano <= pair[1].start_time_unix_nano)
}
