//! How many requests a client may make.

use crate::{
    expect::problem,
    gateway::{FLOWER, Gateway, JSON},
    keys::Keys,
};
use serde_json::json;
use std::time::{Duration, Instant};
use tepal_shared::{
    job::{JobId, Priority},
    queue::work::Settlement,
};
use tepal_tests::http::{Answer, Method, raw};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const LIMIT: (&str, &str) = ("RATE_LIMIT_PER_MINUTE", "3");

/// What is left after the request.
fn remaining(answer: &Answer) -> Option<&str> {
    answer.header("ratelimit").and_then(|state| state.strip_prefix(r#""client";r="#)?.split(';').next())
}

#[tokio::test]
async fn a_client_over_its_limit_gets_retry_after_and_stores_nothing() {
    let gateway = Gateway::with(&[LIMIT]).await;
    for left in ["2", "1", "0"] {
        let answer = gateway.predict(FLOWER).await;
        assert_eq!((answer.status, remaining(&answer)), (202, Some(left)), "{}", answer.text());
        assert_eq!(answer.header("ratelimit-policy"), Some(r#""client";q=3;w=60"#));
    }
    let stored = gateway.keys();

    let answer = gateway.predict(FLOWER).await;

    let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((30..=60).contains(&seconds), "{seconds}");
    let detail = format!("Too many requests from this address; the next is accepted after {seconds} s");
    problem(429, "rate_limited", "Too many requests")
        .header("retry-after", Box::leak(seconds.to_string().into_boxed_str()))
        .header("ratelimit-policy", r#""client";q=3;w=60"#)
        .header("ratelimit", r#""client";r=0;t=60"#)
        .assert(&answer, "/predict", &detail);
    assert_eq!(gateway.keys(), stored);
}

#[tokio::test]
async fn requests_of_every_kind_count_but_those_of_who_watches_the_service_do_not() {
    let gateway = Gateway::with(&[LIMIT]).await;
    gateway.is_ready().await;
    for path in ["/health", "/livez", "/readyz", "/metrics", "/openapi.json", "/docs"] {
        let answer = gateway.get(path).await;
        assert_eq!((answer.header("ratelimit"), answer.status == 429), (None, false), "{path}");
    }
    // Refused for another reason, it counts as well.
    assert_eq!(remaining(&gateway.predict("{").await), Some("2"));
    assert_eq!(remaining(&gateway.get("/job/none").await), Some("1"));
    assert_eq!(remaining(&gateway.get("/jobs?limit=9").await), Some("0"));
    assert_eq!(gateway.get("/metadata").await.status, 429);
    assert_eq!(gateway.get("/health").await.header("ratelimit"), None);
}

#[tokio::test]
async fn refused_and_unmatched_requests_count() {
    let gateway = Gateway::with(&[("RATE_LIMIT_PER_MINUTE", "8"), ("MAX_BODY_BYTES", "1048576")]).await;
    let large = " ".repeat((1 << 20) + 1);
    let text = [("content-type", "text/plain")];
    for (method, path, headers, body, status, left) in [
        (Method::GET, "/nothing", &text, "", 404, "7"),
        (Method::PUT, "/predict", &text, "", 405, "6"),
        (Method::POST, "/predict", &[JSON], large.as_str(), 413, "5"),
        (Method::POST, "/predict", &text, "{}", 415, "4"),
        (Method::POST, "/predict", &[JSON], "{", 400, "3"),
        (Method::POST, "/nothing/here", &text, large.as_str(), 404, "2"),
        (Method::DELETE, "/livez", &text, "", 405, ""),
        (Method::GET, "/jobs", &[("accept", "text/plain")], "", 406, "1"),
        (Method::OPTIONS, "/jobs", &text, "", 405, "0"),
        (Method::GET, "/nothing", &text, "", 429, "0"),
    ] {
        let answer = gateway.send(method, path, headers, body).await;
        let expected = Some(left).filter(|left| !left.is_empty());
        assert_eq!((answer.status, remaining(&answer)), (status, expected), "{path}: {}", answer.text());
    }
}

#[tokio::test]
async fn an_unmatched_request_counts_with_the_key_it_shows() {
    let keys = Keys::with("");
    let key = keys.add("--requests-per-minute 3");
    let gateway = keys.gateway(&[LIMIT]).await;
    let left = async |key: &str| {
        let answer = gateway.send(Method::GET, "/nothing", &[("x-api-key", key)], "").await;
        assert_eq!(answer.status, 404);
        answer.header("ratelimit").unwrap().split(';').take(2).collect::<Vec<_>>().join(";")
    };
    assert_eq!(left(&key).await, r#""key";r=2"#);
    assert_eq!(left("tepal_none_wrong").await, r#""client";r=2"#);
}

#[tokio::test]
async fn requests_that_are_no_http_count_with_the_address() {
    let malformed = b"GET /jobs HTTP/1.1\nhost: tepal\r\n\r\n";
    let gateway = Gateway::with(&[LIMIT]).await;
    let refused = async |bytes: &[u8]| {
        let answer = raw(gateway.proxy.addr(), bytes).await;
        String::from_utf8(answer).unwrap()
    };
    for left in [2, 1, 0] {
        let answer = refused(malformed).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(answer.contains(&format!("ratelimit: \"client\";r={left};t=60\r\n")), "{answer}");
    }
    let answer = refused(b"\0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 429 ") && answer.contains("\r\nretry-after: "), "{answer}");
    assert!(answer.contains("\"code\":\"rate_limited\""), "{answer}");
    assert_eq!(gateway.get("/jobs").await.status, 429);

    // A trusted proxy sends the requests of many: its own address pays for none of them.
    let behind = Gateway::with(&[LIMIT, ("TRUSTED_PROXIES", "127.0.0.0/8")]).await;
    for _ in 0..4 {
        let answer = raw(behind.proxy.addr(), malformed).await;
        assert!(answer.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&answer));
    }
}

#[tokio::test]
async fn the_address_behind_a_trusted_proxy_counts_and_a_claimed_one_does_not() {
    let from = |address: &'static str| [JSON, ("x-forwarded-for", address)];
    let trusting = Gateway::with(&[LIMIT, ("TRUSTED_PROXIES", "127.0.0.0/8")]).await;
    for (address, left) in
        [("192.0.2.1", "2"), ("192.0.2.2", "2"), ("192.0.2.2", "1"), ("9.9.9.9, 192.0.2.2", "0")]
    {
        let answer = trusting.send(Method::POST, "/predict", &from(address), FLOWER).await;
        assert_eq!(remaining(&answer), Some(left), "{address}");
    }
    let plain = Gateway::with(&[LIMIT]).await;
    for (address, left) in [("192.0.2.1", "2"), ("192.0.2.2", "1")] {
        let answer = plain.send(Method::POST, "/predict", &from(address), FLOWER).await;
        assert_eq!(remaining(&answer), Some(left), "{address}");
    }
}

#[tokio::test]
async fn a_request_counts_as_many_as_its_work() {
    let gateway = Gateway::with(&[("RATE_LIMIT_PER_MINUTE", "100")]).await;
    let mut left = 100;
    let mut costs = |answer: &Answer, cost: i32| {
        left -= cost;
        assert_eq!(remaining(answer), Some(left.to_string().as_str()), "{}", answer.text());
    };
    costs(&gateway.get("/jobs?limit=49").await, 1);
    costs(&gateway.get("/jobs?limit=100").await, 3);
    let look_up = async |ids: usize| {
        let ids: Vec<String> = (0..ids).map(|_| JobId::new(0).to_string()).collect();
        gateway.send(Method::POST, "/jobs/lookup", &[JSON], &json!({"job_ids": ids}).to_string()).await
    };
    costs(&look_up(49).await, 1);
    costs(&look_up(50).await, 2);
    costs(&look_up(1000).await, 21);
    costs(&gateway.get("/jobs?limit=0").await, 1);
    costs(&look_up(1000).await, 21);
    costs(&look_up(1000).await, 21);
    costs(&look_up(1000).await, 21);
    // Eight are left. A refused request counts as one.
    let refused = look_up(1000).await;
    assert_eq!(refused.status, 429, "{}", refused.text());
    costs(&refused, 1);
}

#[tokio::test]
async fn what_a_request_turned_out_to_cost_is_charged_afterwards() {
    let gateway = Gateway::with(&[("RATE_LIMIT_PER_MINUTE", "20")]).await;
    let id = gateway.store_job(Priority::Normal).await;
    let result = json!({"prediction": 0, "text": "x".repeat(1 << 20)}).to_string();
    gateway.settle(&gateway.take_one().await, Settlement::Complete(result)).await;
    // A MiB and a little more, for which there is just enough left the first four times.
    for left in ["15", "10", "5", "0"] {
        let answer = gateway.get(&format!("/job/{id}")).await;
        assert_eq!((answer.status, remaining(&answer)), (200, Some(left)));
    }
    assert_eq!(gateway.get(&format!("/job/{id}")).await.status, 429);
}

#[tokio::test]
async fn a_filtered_listing_pays_for_each_job_that_it_looks_at() {
    let gateway = Gateway::with(&[("RATE_LIMIT_PER_MINUTE", "100")]).await;
    for _ in 0..120 {
        gateway.store_job(Priority::Normal).await;
    }
    let answer = gateway.get("/jobs?limit=10&status=failed").await;
    assert_eq!((answer.status, remaining(&answer)), (200, Some("97")), "{}", answer.text());
    let answer = gateway.get("/jobs?limit=10").await;
    assert_eq!((answer.status, remaining(&answer)), (200, Some("96")), "{}", answer.text());
}

#[tokio::test]
async fn what_is_not_counted_is_answered_ten_times_a_second_and_once_for_each_who_has_it() {
    let gateway = Gateway::with(&[LIMIT]).await;
    for path in ["/livez", "/readyz", "/metrics", "/docs", "/openapi.json"] {
        let first = gateway.get(path).await;
        let tag = first.header("etag").unwrap_or_else(|| panic!("{path} has no tag")).to_owned();
        if path != "/metrics" {
            let again = gateway.send(Method::GET, path, &[("if-none-match", &tag)], "").await;
            assert_eq!((again.status, again.body.len()), (304, 0), "{path}");
        }
    }
    let mut connection = TcpStream::connect(gateway.proxy.addr()).await.unwrap();
    let ask = "GET /openapi.json HTTP/1.1\r\nhost: tepal\r\n\r\n".repeat(19)
        + "GET /livez HTTP/1.1\r\nhost: tepal\r\nconnection: close\r\n\r\n";
    let started = Instant::now();
    connection.write_all(ask.as_bytes()).await.unwrap();
    let mut answers = Vec::new();
    connection.read_to_end(&mut answers).await.unwrap();
    let answers = String::from_utf8_lossy(&answers);
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 20);
    assert!(started.elapsed() >= Duration::from_secs(1), "twenty within {:?}", started.elapsed());
}
