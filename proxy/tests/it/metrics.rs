//! `GET /metrics`: what is counted, and under which names.

use std::collections::BTreeSet;

use tepal_shared::job::Priority;
use tepal_tests::{
    http::{Answer, Method},
    process::Proxy,
    wait::eventually,
};

use crate::{
    gateway::{FLOWER, Gateway, JSON, SOON, accepted},
    models::{self, TOY, repository},
};

/// The value of the sample with exactly this name and these labels.
fn sample(metrics: &Answer, series: &str) -> Option<f64> {
    let text = metrics.text();
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map(|value| value.parse().unwrap())
}

#[tokio::test]
async fn the_answer_is_prometheus_text_and_explains_every_metric() {
    let gateway = Gateway::start().await;
    gateway.submit().await;
    let metrics = gateway.get("/metrics").await;
    assert_eq!(metrics.status, 200);
    assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert_eq!(metrics.header("x-request-id"), Some("r-1"));
    let text = metrics.text();
    let described: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next()).collect();
    let typed: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    assert!(typed.contains("tepal_http_requests_total"), "{text}");
    assert_eq!(typed.difference(&described).collect::<Vec<_>>(), Vec::<&&str>::new());
}

#[tokio::test]
async fn requests_are_counted_by_method_route_and_status() {
    let gateway = Gateway::start().await;
    let id = gateway.submit().await;
    gateway.get(&format!("/job/{id}")).await;
    gateway.get("/no/such/path").await;
    gateway.send(Method::PATCH, "/predict", &[], "").await;
    gateway.send(Method::from_bytes(b"BREW").unwrap(), "/coffee", &[], "").await;

    let metrics = gateway.get("/metrics").await;
    for labels in [
        r#"method="POST",route="/predict",status="202""#,
        r#"method="GET",route="/job/{id}",status="200""#,
        r#"method="GET",route="unmatched",status="404""#,
        r#"method="PATCH",route="/predict",status="405""#,
        r#"method="other",route="unmatched",status="404""#,
    ] {
        let series = format!("tepal_http_requests_total{{{labels}}}");
        assert_eq!(sample(&metrics, &series), Some(1.0), "{labels}: {}", metrics.text());
    }
    let slow = r#"tepal_http_request_duration_seconds_bucket{method="POST",route="/predict",le="+Inf"}"#;
    assert_eq!(sample(&metrics, slow), Some(1.0));
}

#[tokio::test]
async fn submissions_are_counted_by_what_became_of_them() {
    let gateway = Gateway::with(&[("MAX_QUEUE_DEPTH", "2")]).await;
    gateway.predict(r#"{"data": [[5.1, 3.5, 1.4, 0.2]], "priority": "high"}"#).await;
    gateway.predict_once("k", FLOWER).await;
    gateway.predict_once("k", FLOWER).await;
    gateway.predict_once("k", r#"{"data": [[6.1, 3.5, 1.4, 0.2]]}"#).await;
    gateway.predict("{}").await;
    gateway.predict(FLOWER).await;
    gateway.post("/predict/test").await;
    // Refused as a whole, and item by item.
    gateway.send(Method::POST, "/predict/batch", &[], "[]").await;
    gateway.send(Method::POST, "/predict/batch", &[JSON], "[]").await;
    gateway.send(Method::POST, "/predict/batch", &[JSON], &format!("[{FLOWER}, {{}}]")).await;
    gateway.post("/job/a1b2c3/retry").await;

    let metrics = gateway.get("/metrics").await;
    for (series, expected) in [
        (r#"tepal_jobs_submitted_total{model="iris",priority="high"}"#, 1.0),
        (r#"tepal_jobs_submitted_total{model="iris",priority="normal"}"#, 1.0),
        (r#"tepal_jobs_submitted_total{model="iris",priority="low"}"#, 0.0),
        (r#"tepal_jobs_repeated_total{model="iris"}"#, 1.0),
        (r#"tepal_jobs_refused_total{model="iris",reason="idempotency_conflict"}"#, 1.0),
        (r#"tepal_jobs_refused_total{model="iris",reason="invalid_input"}"#, 2.0),
        (r#"tepal_jobs_refused_total{model="_unknown",reason="invalid_input"}"#, 1.0),
        (r#"tepal_jobs_refused_total{model="iris",reason="queue_full"}"#, 3.0),
        (r#"tepal_jobs_refused_total{model="_unknown",reason="unsupported_media_type"}"#, 1.0),
        (r#"tepal_jobs_refused_total{model="_unknown",reason="job_not_found"}"#, 1.0),
    ] {
        assert_eq!(sample(&metrics, series), Some(expected), "{series}: {}", metrics.text());
    }
}

#[tokio::test]
async fn jobs_are_counted_by_model_and_invented_names_are_no_labels() {
    let folder = repository();
    let gateway = models::gateway(&folder, &[]).await;
    let toy = accepted(&gateway.predict(TOY).await);
    gateway.delete(&format!("/job/{toy}")).await;
    gateway.post(&format!("/job/{toy}/retry")).await;
    gateway.predict_once("k", TOY).await;
    gateway.predict_once("k", TOY).await;
    let wrong = r#"{"model": "toy", "data": 5}"#;
    gateway.predict(wrong).await;
    gateway.predict(r#"{"model": "invented", "data": 5}"#).await;
    gateway.post("/predict/test?model=toy").await;
    gateway.post("/predict/test?model=invented").await;
    let batch = format!(r#"[{TOY}, {wrong}, {{"model": "invented", "data": 5}}, {FLOWER}, {{"data": 5}}]"#);
    gateway.send(Method::POST, "/predict/batch", &[JSON], &batch).await;

    let metrics = gateway.get("/metrics").await;
    for (series, expected) in [
        // The retry is no submission.
        (r#"tepal_jobs_submitted_total{model="toy",priority="normal"}"#, 4.0),
        (r#"tepal_jobs_submitted_total{model="iris",priority="normal"}"#, 1.0),
        (r#"tepal_jobs_cancelled_total{model="toy"}"#, 1.0),
        (r#"tepal_jobs_requeued_total{model="toy"}"#, 1.0),
        (r#"tepal_jobs_requeued_total{model="iris"}"#, 0.0),
        (r#"tepal_jobs_repeated_total{model="toy"}"#, 1.0),
        (r#"tepal_jobs_refused_total{model="toy",reason="invalid_input"}"#, 2.0),
        (r#"tepal_jobs_refused_total{model="iris",reason="invalid_input"}"#, 1.0),
        (r#"tepal_jobs_refused_total{model="_unknown",reason="model_not_found"}"#, 3.0),
    ] {
        assert_eq!(sample(&metrics, series), Some(expected), "{series}: {}", metrics.text());
    }
    assert!(!metrics.text().contains("invented"), "{}", metrics.text());
}

#[tokio::test]
async fn the_queue_is_measured() {
    let gateway = Gateway::start().await;
    gateway.heartbeat("w1", "onnx", true, None);
    gateway.store_job(Priority::Normal).await;
    gateway.take_one().await;
    gateway.store_job(Priority::High).await;
    gateway.store_job(Priority::Low).await;
    gateway.store_job(Priority::Low).await;
    let measured = async || {
        let metrics = gateway.get("/metrics").await;
        let seen = [
            r#"tepal_queue_length{model="iris",priority="high"}"#,
            r#"tepal_queue_length{model="iris",priority="normal"}"#,
            r#"tepal_queue_length{model="iris",priority="low"}"#,
            r#"tepal_jobs_in_flight{model="iris"}"#,
            "tepal_workers_live",
            "tepal_redis_up",
            "tepal_jobs_outstanding",
            r#"tepal_model_jobs_outstanding{model="iris"}"#,
            r#"tepal_model_jobs_outstanding{model="language"}"#,
        ]
        .map(|series| sample(&metrics, series).unwrap_or(-1.0) as i64);
        let is_old =
            sample(&metrics, r#"tepal_oldest_waiting_job_seconds{model="iris"}"#).unwrap_or_default() > 0.0;
        if seen == [1, 0, 2, 1, 1, 1, 4, 4, 0] && is_old { Ok(()) } else { Err(format!("{seen:?} {is_old}")) }
    };
    eventually(SOON, "the gauges", measured).await;
}

#[tokio::test]
async fn the_outstanding_jobs_are_0_before_redis_has_answered() {
    let nobody = tepal_tests::ports::free_port();
    let proxy = Proxy::start(&format!("redis://127.0.0.1:{nobody}"), &[]).await;
    let metrics = proxy.client().get("/metrics").await;
    assert_eq!(sample(&metrics, "tepal_jobs_outstanding"), Some(0.0), "{}", metrics.text());
    for model in ["iris", "language"] {
        let series = format!("tepal_model_jobs_outstanding{{model=\"{model}\"}}");
        assert_eq!(sample(&metrics, &series), Some(0.0), "{}", metrics.text());
    }
}

#[tokio::test]
async fn the_outstanding_jobs_keep_their_number_while_redis_is_down() {
    let gateway = Gateway::start().await;
    gateway.submit().await;
    gateway.submit().await;
    let all = ["tepal_jobs_outstanding", r#"tepal_model_jobs_outstanding{model="iris"}"#, "tepal_redis_up"];
    let seen = async || {
        let metrics = gateway.get("/metrics").await;
        all.map(|series| sample(&metrics, series))
    };
    eventually(SOON, "the jobs to be counted", async || seen().await == [Some(2.0), Some(2.0), Some(1.0)])
        .await;
    gateway.redis.kill9();
    eventually(SOON, "Redis to be down", async || seen().await[2] == Some(0.0)).await;
    assert_eq!(seen().await, [Some(2.0), Some(2.0), Some(0.0)]);
}

#[tokio::test]
async fn a_redis_that_is_down_shows() {
    let gateway = Gateway::start().await;
    gateway.redis.kill9();
    let down = async || sample(&gateway.get("/metrics").await, "tepal_redis_up") == Some(0.0);
    eventually(SOON, "tepal_redis_up to fall", down).await;
}
