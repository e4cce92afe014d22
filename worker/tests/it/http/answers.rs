//! What an endpoint gets, and what becomes of its answer.

use tepal_shared::{
    content::Content,
    job::{JobResult, LARGE_BYTES, NewJob},
    queue::heartbeat::BackendState,
};
use tepal_tests::{http_server::Reply, wait::eventually};

use super::{new_job, site, text};
use crate::{queue::SOON, settings::Settings};

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[tokio::test]
async fn a_value_is_passed_on_as_it_is_and_the_answer_is_the_result() {
    let (server, site) = site(("", "headers = { x-literal = \"a b\", user-agent = \"mine\" }")).await;
    let answer = "{\"text\" : \"é\", \"n\": [1.10, 1e400, null]}";
    server.script([Reply::json(format!("\n{answer}  "))]);
    let _worker = site.worker(Settings::default()).await;
    let data = "{\"prompt\":\"é\",\"n\":[1,2.5,null]}";
    let job = NewJob { traceparent: Some(TRACE.to_owned()), ..new_job(Content::Json(data)) };

    let id = site.queue.submit_job(0, job).await;

    let job = site.queue.completed(id).await;
    assert_eq!((text(&job), job.attempts), (answer, 1));
    let request = server.received().remove(0);
    assert_eq!(
        (request.method.as_str(), request.path.as_str(), request.text().as_str()),
        ("POST", "/run?a=b", data)
    );
    let header = |name| request.header(name).unwrap_or_default();
    assert_eq!(
        (header("content-type"), header("x-literal"), header("user-agent")),
        ("application/json", "a b", "mine")
    );
    assert_eq!((header("idempotency-key"), header("traceparent")), (id.to_string().as_str(), TRACE));
    assert_eq!((header("accept"), header("accept-encoding")), ("application/json, */*;q=0.5", "identity"));
    assert_eq!(header("host"), server.addr().to_string());
}

#[tokio::test]
async fn bytes_go_in_and_out_with_their_content_type() {
    let (server, site) = site(("", "method = \"PUT\"")).await;
    let _worker = site.worker(Settings::default()).await;
    for length in [3, LARGE_BYTES + 1] {
        let bytes = vec![0xff; length];
        let id = site.submit_content(Content::Bytes { content_type: "image/x-a; b=c", bytes: &bytes }).await;

        let job = site.queue.completed(id).await;

        let content_type = "image/x-a; b=c".to_owned();
        let stored = Content::Bytes { content_type: &content_type, bytes: &bytes }.stored();
        let (result, large) = match length {
            3 => (JobResult::Bytes { content_type, bytes: bytes.clone() }, None),
            _ => (JobResult::LargeBytes { content_type, bytes: stored.len() }, Some(stored)),
        };
        assert_eq!(job.result, Some(result));
        assert_eq!(site.queue.store.views.large_result(id).await.unwrap(), large);
        let request = server.received().pop().unwrap();
        assert_eq!(
            (request.method.as_str(), request.header("content-type")),
            ("PUT", Some("image/x-a; b=c"))
        );
        assert_eq!(request.body, bytes);
    }
}

#[tokio::test]
async fn an_answer_without_a_type_is_bytes() {
    let (server, site) = site(("", "")).await;
    server.script([Reply::status(204), Reply::status(200).with("content-type", "not a type")]);
    let _worker = site.worker(Settings::default()).await;
    for _ in 0..2 {
        let id = site.submit("1").await;
        let result = site.queue.completed(id).await.result;
        let content_type = "application/octet-stream".to_owned();
        assert_eq!(result, Some(JobResult::Bytes { content_type, bytes: vec![] }));
    }
}

#[tokio::test]
async fn an_answer_that_cannot_be_used_fails_the_job_at_once() {
    let (server, site) = site(("[serving]\nmax_result_bytes = 20", "")).await;
    let _worker = site.worker(Settings::default()).await;
    let too_large = ("result_too_large", "The result is larger than 20 bytes");
    for (reply, (code, message)) in [
        (Reply::json(format!("[{}]", "1".repeat(19))), too_large),
        (Reply::bytes("image/png", vec![7; 21]), too_large),
        (
            Reply::json("{\"a\": NaN}"),
            ("bad_model_answer", "The endpoint answered with JSON that is malformed"),
        ),
        (Reply::json(""), ("bad_model_answer", "The endpoint answered with JSON that is malformed")),
        (
            Reply::json("1").with("content-encoding", "gzip"),
            (
                "bad_model_answer",
                "The endpoint answered with the content coding gzip, which was not asked for",
            ),
        ),
    ] {
        server.script([reply]);
        let (error, error_code, attempts) = site.queue.failed(site.submit("1").await).await;
        assert_eq!((error_code.as_str(), attempts), (code, 1), "{error}");
        assert!(error.starts_with(message), "{error}");
    }
    server.script([Reply::json(format!("[{}]", "1".repeat(18)))]);
    assert_eq!(site.queue.completed(site.submit("1").await).await.attempts, 1);
}

#[tokio::test]
async fn an_answer_without_a_declared_length_is_read_up_to_the_limit() {
    let (server, site) = site(("[serving]\nmax_result_bytes = 20", "")).await;
    let chunks = |parts: &[&str]| parts.iter().map(|part| part.as_bytes().to_vec()).collect();
    let (fitting, large) = (chunks(&["[12345678", "9012345678]"]), chunks(&["[12345678", "90123456789]"]));
    server.script([fitting, large].map(|chunks| Reply::Chunks { chunks, is_whole: true }));
    let _worker = site.worker(Settings::default()).await;

    let job = site.queue.completed(site.submit("1").await).await;
    assert_eq!(text(&job), "[123456789012345678]");
    let (_, code, attempts) = site.queue.failed(site.submit("1").await).await;
    assert_eq!((code.as_str(), attempts), ("result_too_large", 1));
}

#[tokio::test]
async fn a_secret_is_read_again_while_the_worker_runs() {
    // Beside the repository, whose changes would load the model anew.
    let secrets = tempfile::tempdir().unwrap();
    let token = secrets.path().join("token");
    std::fs::write(&token, "one\n").unwrap();
    let header = format!("headers.authorization = {{ file = {token:?}, prefix = \"Bearer \" }}");
    let (server, site) = site(("", &header)).await;
    let _worker = site.worker(Settings::default()).await;
    site.queue.completed(site.submit("1").await).await;
    assert_eq!(server.received()[0].header("authorization"), Some("Bearer one"));

    std::fs::write(&token, "two").unwrap();
    let is_new = async || {
        site.queue.completed(site.submit("1").await).await;
        server.received().last().and_then(|request| request.header("authorization")) == Some("Bearer two")
    };
    eventually(SOON, "the new secret", is_new).await;
}

#[tokio::test]
async fn the_path_of_probes_says_whether_the_model_can_be_called() {
    let (server, site) = site(("", "probe = \"/health\"")).await;
    server.set_probe_reply(Reply::status(500));
    let _worker = site.worker(Settings::default()).await;
    let id = site.submit("1").await;

    let is_refused = async || {
        let detail = site.queue.worker_state().await.and_then(|state| state.backend_detail);
        let expected = "The endpoint's probe failed: Model inference failed (500) (model_error)";
        if detail.as_deref() == Some(expected) { Ok(()) } else { Err(format!("{detail:?}")) }
    };
    eventually(SOON, "the probe to fail", is_refused).await;

    assert_eq!(server.received(), []);
    server.set_probe_reply(Reply::status(204));
    assert_eq!(site.queue.completed(id).await.attempts, 1);
    let state = site.queue.backend_is(BackendState::Ok).await;
    assert_eq!(state.metadata.unwrap()["metadata"]["signature_def"], serde_json::json!({}));
}
