//! The bounded queue: new work is refused early, with a time to come back.

use tepal_shared::{job::Priority, queue::work::Settlement};
use tepal_tests::wait::eventually;

use crate::{
    expect::{Problem, problem},
    gateway::{FLOWER, Gateway, SETOSA, SOON, accepted},
};

const DETAIL: &str = "The queue is full; try again later";

fn queue_full(seconds: &'static str) -> Problem {
    problem(503, "queue_full", "Queue full").header("retry-after", seconds)
}

#[tokio::test]
async fn a_full_queue_refuses_and_stores_nothing() {
    let gateway = Gateway::with(&[("MAX_QUEUE_DEPTH", "2")]).await;
    gateway.submit().await;
    gateway.submit().await;
    let before = gateway.keys();

    // Nothing has ended yet, so that the rate is unknown.
    queue_full("5").assert(&gateway.predict_once("order-1", FLOWER).await, "/predict", DETAIL);
    queue_full("5").assert(&gateway.post("/predict/test").await, "/predict/test", DETAIL);
    assert_eq!(gateway.keys(), before);

    // A running job still counts, an ended one does not.
    let attempt = gateway.take(0).await.remove(0);
    queue_full("5").assert(&gateway.predict_once("order-1", FLOWER).await, "/predict", DETAIL);
    gateway.settle(&attempt, Settlement::Complete(SETOSA.to_owned())).await;
    accepted(&gateway.predict_once("order-1", FLOWER).await);
}

#[tokio::test]
async fn what_was_accepted_before_is_found_in_a_full_queue() {
    let gateway = Gateway::with(&[("MAX_QUEUE_DEPTH", "1")]).await;
    let id = accepted(&gateway.predict_once("order-1", FLOWER).await);
    assert_eq!(accepted(&gateway.predict_once("order-1", FLOWER).await), id);
}

#[tokio::test]
async fn the_time_to_come_back_follows_the_drain_rate() {
    let gateway = Gateway::with(&[("MAX_QUEUE_DEPTH", "400")]).await;
    for _ in 0..400 {
        gateway.store_job(Priority::Normal).await;
    }
    queue_full("5").assert(&gateway.predict(FLOWER).await, "/predict", DETAIL);

    // Many more than four jobs a second end and are replaced: one in a hundred is free in less than a second.
    let mut running = gateway.take(0).await;
    let shorter = async || {
        for _ in 0..5 {
            let attempt = running.pop().unwrap();
            gateway.settle(&attempt, Settlement::Complete(SETOSA.to_owned())).await;
            accepted(&gateway.predict(FLOWER).await);
        }
        running.extend(gateway.take(0).await);
        let answer = gateway.predict(FLOWER).await;
        match answer.header("retry-after") {
            Some("1") => Ok(()),
            other => Err(format!("{} {other:?}", answer.status)),
        }
    };
    eventually(SOON, "a shorter time to come back", shorter).await;
}

#[tokio::test]
async fn jobs_that_come_in_are_not_taken_for_jobs_that_end() {
    let gateway = Gateway::with(&[("MAX_QUEUE_DEPTH", "2000")]).await;
    // That takes seconds, in each of which the probe reads the queue between two submissions.
    for _ in 0..2000 {
        gateway.submit().await;
    }
    queue_full("5").assert(&gateway.predict(FLOWER).await, "/predict", DETAIL);
}

#[tokio::test]
async fn a_queue_without_limit_is_never_full() {
    let gateway = Gateway::with(&[("MAX_QUEUE_DEPTH", "0")]).await;
    for _ in 0..20 {
        gateway.submit().await;
    }
}
