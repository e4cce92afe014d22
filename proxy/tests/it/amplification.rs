//! No answer is out of proportion to its request: a client cannot make the proxy work, hold or send much by asking for
//! little.

use serde_json::json;
use tepal_shared::{
    job::{JobId, Priority},
    queue::work::Settlement,
};
use tepal_tests::{http::Method, wait::eventually};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpSocket,
};

use crate::gateway::{FLOWER, Gateway, JSON, SOON};

/// Bytes of an answer that is one error.
const ERROR: usize = 4 << 10;

#[tokio::test]
async fn an_error_repeats_no_more_than_the_beginning_of_a_name() {
    let gateway = Gateway::start().await;
    let name = "~".repeat(1_040_000);
    let members = r#""":0,"#.repeat(21);
    let nested = format!("{{\"{name}\":{{{}}}}}", members.trim_end_matches(','));
    let unknown = format!("{{\"{name}\":0}}");
    for path in ["/predict", "/predict/batch", "/jobs/lookup"] {
        for body in [&nested, &unknown] {
            let answer = gateway.send(Method::POST, path, &[JSON], body).await;
            assert_eq!(answer.status, 422, "{path} {}", answer.text());
            assert!(answer.body.len() <= ERROR, "{path}: {} bytes", answer.body.len());
        }
    }
    let answer = gateway.predict(&unknown).await.json();
    let pointer = answer["errors"][1]["pointer"].as_str().unwrap();
    assert_eq!(pointer, format!("/{}...", "~0".repeat(100)).replace("~0...", "~..."));
}

#[tokio::test]
async fn wrong_values_are_not_repeated_at_length() {
    let gateway = Gateway::start().await;
    let large = format!(r#"{{"beyond f64":"{}"}}"#, "9".repeat(1_000_000));
    let many = vec![r#"[{"beyond f64":"\u0001"}, "", "", ""]"#; 20]
        .join(",")
        .replace("\\u0001", &"\\u0001".repeat(500));
    for body in [
        format!(r#"{{"data":[[{large}]]}}"#),
        format!(r#"{{"data":[[{large}, 1, 1, 1]]}}"#),
        format!(r#"{{"data":[{many}]}}"#),
        format!(r#"{{"timeout_seconds":{large}}}"#),
    ] {
        let answer = gateway.predict(&body).await;
        assert_eq!(answer.status, 422);
        assert!(answer.body.len() <= ERROR, "{} bytes", answer.body.len());
    }
    let query = format!("/jobs?{}=1", "%01".repeat(2000));
    let answer = gateway.get(&query).await;
    assert_eq!(answer.status, 422);
    assert!(answer.body.len() <= ERROR, "{} bytes", answer.body.len());
    let answer = gateway.get(&format!("/nowhere/{}", "x".repeat(8000))).await;
    assert_eq!(answer.status, 404);
    assert!(answer.body.len() <= ERROR, "{} bytes", answer.body.len());
}

#[tokio::test]
async fn a_batch_of_wrong_jobs_is_answered_in_bounded_bytes_for_each() {
    let gateway = Gateway::start().await;
    let many = r#"{"a":0,"b":0,"c":0,"d":0,"e":0,"f":0,"g":0,"h":0,"i":0,"j":0}"#;
    for (jobs, job, listed) in [(1000, "0", 20), (1000, many, 20), (20, many, 10), (1, many, 1)] {
        let body = format!("[{}]", vec![job; jobs].join(","));
        let answer = gateway.send(Method::POST, "/predict/batch", &[JSON], &body).await;
        assert_eq!(answer.status, 207);
        assert!(answer.body.len() <= ERROR + 128 * jobs, "{jobs}: {} bytes", answer.body.len());
        let answer = answer.json();
        let problems = answer["jobs"].as_array().unwrap();
        assert_eq!(problems.len(), jobs);
        let is_complete = |job: &&serde_json::Value| job["problem"]["errors"].is_array();
        let complete = problems.iter().filter(is_complete).count();
        assert!((listed..=20).contains(&complete), "{complete} are complete: {answer}");
        assert!(problems.iter().all(|job| job["problem"]["code"] == "invalid_input"));
    }
}

#[tokio::test]
async fn an_id_that_is_looked_up_many_times_is_answered_once() {
    let gateway = Gateway::start().await;
    let id = gateway.submit().await;
    let unknown = JobId::new(0).to_string();
    let ids = vec![format!(r#""{id}","{unknown}""#); 500].join(",");
    let answer =
        gateway.send(Method::POST, "/jobs/lookup", &[JSON], &format!(r#"{{"job_ids":[{ids}]}}"#)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = answer.json();
    assert_eq!(answer["jobs"].as_array().unwrap().len(), 1);
    assert_eq!(answer["not_found"], serde_json::json!([unknown]));
}

/// Jobs with results of this size.
async fn large_jobs(gateway: &Gateway, count: usize, bytes: usize) -> Vec<String> {
    let result = json!({"prediction": 0, "text": "x".repeat(bytes)}).to_string();
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(gateway.store_job(Priority::Normal).await.to_string());
        gateway.settle(&gateway.take_one().await, Settlement::Complete(result.clone())).await;
    }
    ids
}

#[tokio::test]
async fn no_answer_is_larger_than_eight_mebibytes() {
    let gateway = Gateway::start().await;
    let mut rest = large_jobs(&gateway, 20, 1_000_000).await;
    let mut answers = 0;
    while !rest.is_empty() {
        let body = json!({"job_ids": rest}).to_string();
        let answer = gateway.send(Method::POST, "/jobs/lookup", &[JSON], &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(answer.body.len() <= 8 << 20, "{}", answer.body.len());
        let answer = answer.json();
        assert!(!answer["jobs"].as_array().unwrap().is_empty());
        rest = answer["not_read"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|id| id.as_str().unwrap().into())
            .collect();
        answers += 1;
    }
    assert_eq!(answers, 3);
}

/// `MAX_RESULT_BYTES` of a worker, by default, and the least memory for bodies of [`SMALL_BODIES`].
const LARGEST_RESULT: usize = 8 << 20;
/// Smaller than the default, which needs more memory.
const SMALL_BODIES: (&str, &str) = ("MAX_BODY_BYTES", "1048576");

#[tokio::test]
async fn the_largest_result_can_be_read_with_the_least_memory_and_everything_around_it() {
    let gateway = Gateway::with(&[("BODY_MEMORY_BYTES", &LARGEST_RESULT.to_string()), SMALL_BODIES]).await;
    let around = json!({"prediction": 0, "text": ""}).to_string().len();
    let id = large_jobs(&gateway, 1, LARGEST_RESULT - around).await.remove(0);

    let plain = gateway.get(&format!("/job/{id}")).await;
    let waited = gateway.send(Method::GET, &format!("/job/{id}"), &[("prefer", "wait=1")], "").await;
    let body = json!({"job_ids": [id]}).to_string();
    let looked_up = gateway.send(Method::POST, "/jobs/lookup", &[JSON], &body).await;

    for answer in [plain, waited, looked_up] {
        assert_eq!(answer.status, 200, "{}", answer.text());
        let size = answer.body.len();
        assert!((LARGEST_RESULT..LARGEST_RESULT + 1024).contains(&size), "{size} bytes");
    }
}

#[tokio::test]
async fn answers_that_nobody_reads_hold_bounded_memory() {
    let settings = [("BODY_MEMORY_BYTES", "16777216"), SMALL_BODIES, ("BODY_TIMEOUT_MS", "600000")];
    let gateway = Gateway::with(&settings).await;
    // Answers of one job would be held once.
    let ids = large_jobs(&gateway, 3, 8_000_000).await;
    let (id, others) = ids.split_first().unwrap();
    let mut silent = Vec::new();
    for other in others {
        let ask = format!("GET /job/{other} HTTP/1.1\r\nhost: tepal\r\n\r\n");
        // A small buffer, so that the proxy and not the kernel holds the answer.
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut connection = socket.connect(gateway.proxy.addr().parse().unwrap()).await.unwrap();
        connection.write_all(ask.as_bytes()).await.unwrap();
        let mut start = [0; 12];
        connection.read_exact(&mut start).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&start), "HTTP/1.1 200");
        silent.push(connection);
    }
    let refused = async || {
        let answer = gateway.get(&format!("/job/{id}")).await;
        (answer.status == 503).then(|| answer.json()["code"].clone())
    };
    assert_eq!(eventually(SOON, "no memory is left", refused).await, "overloaded");
    assert_eq!(gateway.predict(FLOWER).await.status, 202, "small requests go on");
    drop(silent);
    let taken = async || gateway.get(&format!("/job/{id}")).await.status == 200;
    eventually(SOON, "the memory comes back", taken).await;
}
