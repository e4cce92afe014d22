//! Servers that take the values of several jobs as a JSON array.

use tepal_tests::http_server::Reply;

use super::{json, site};
use crate::settings::Settings;

/// Jobs that wait when the worker starts share a call.
async fn submitted(site: &super::Site, count: usize) -> Vec<tepal_shared::job::JobId> {
    let mut ids = Vec::new();
    for number in 0..count {
        ids.push(site.submit(&format!("{{\"n\":{number}}}")).await);
    }
    ids
}

#[tokio::test]
async fn jobs_share_an_array_and_each_gets_its_value() {
    let (server, site) = site(("max_batch = 4", "")).await;
    let ids = submitted(&site, 6).await;

    let _worker = site.worker(Settings::default().one_at_a_time()).await;

    for (number, job) in site.queue.all_completed(&ids).await.iter().enumerate() {
        assert_eq!((json(job), job.attempts), (serde_json::json!({"n": number}), 1));
    }
    let bodies: Vec<_> = server.received().iter().map(|request| request.text()).collect();
    assert_eq!(bodies, [r#"[{"n":0},{"n":1},{"n":2},{"n":3}]"#, r#"[{"n":4},{"n":5}]"#]);
    assert!(server.received().iter().all(|request| request.header("idempotency-key").is_none()));
    let id = site.submit("5").await;
    assert_eq!(json(&site.queue.completed(id).await), 5);
    let request = server.received().pop().unwrap();
    let key = id.to_string();
    assert_eq!((request.text().as_str(), request.header("idempotency-key")), ("[5]", Some(key.as_str())));
}

#[tokio::test]
async fn an_array_of_another_length_fails_only_the_job_that_gets_it_alone() {
    let (server, site) = site(("max_batch = 4", "")).await;
    // The call of both, then each alone.
    server.script([Reply::json("[1]"), Reply::json("[1, 2]")]);
    let ids = submitted(&site, 2).await;

    let _worker = site.worker(Settings::default().one_at_a_time()).await;

    let (error, code, attempts) = site.queue.failed(ids[0]).await;
    assert_eq!((code.as_str(), attempts), ("bad_model_answer", 1));
    assert_eq!(error, "The endpoint answered with 2 values instead of 1");
    assert_eq!(site.queue.completed(ids[1]).await.attempts, 1);
}

#[tokio::test]
async fn the_job_whose_value_is_rejected_is_found() {
    let (server, site) = site(("max_batch = 4", "")).await;
    let no = || Reply::status(422).saying("{\"detail\": \"n is odd\"}");
    server.script([no(), Reply::Echo, no()]);
    let ids = submitted(&site, 2).await;

    let _worker = site.worker(Settings::default().one_at_a_time()).await;

    assert_eq!(site.queue.completed(ids[0]).await.attempts, 1);
    let (error, code, _) = site.queue.failed(ids[1]).await;
    assert_eq!(
        (error.as_str(), code.as_str()),
        ("The endpoint rejected the input (422): n is odd", "model_rejected")
    );
}

#[tokio::test]
async fn a_raw_body_does_not_fit() {
    let (_server, site) = site(("max_batch = 4", "")).await;
    let bytes = tepal_shared::content::Content::Bytes { content_type: "image/png", bytes: b"x" };
    let id = site.submit_content(bytes).await;

    let _worker = site.worker(Settings::default()).await;

    let (error, code, _) = site.queue.failed(id).await;
    assert_eq!(code, "invalid_input");
    assert!(error.ends_with("it is a raw body, but the model takes only JSON"), "{error}");
}
