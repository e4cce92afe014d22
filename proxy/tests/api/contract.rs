//! `/openapi.json`, `/docs`, and the errors of the framework itself.

use std::path::Path;

use serde_json::{Value, json};
use tepal_tests::http::{Method, raw};

use crate::site::Site;

/// The contract as it was reviewed; `TEPAL_UPDATE_CONTRACT=1` writes it anew.
const SNAPSHOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");

#[tokio::test]
async fn the_contract_is_the_reviewed_one() {
    let site = Site::start(&[]).await;
    let answer = site.client.get("/openapi.json").await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let given = format!("{:#}\n", answer.json());
    if std::env::var_os("TEPAL_UPDATE_CONTRACT").is_some() {
        std::fs::write(SNAPSHOT, &given).unwrap();
    }
    let reviewed = std::fs::read_to_string(Path::new(SNAPSHOT)).unwrap();
    assert!(
        given == reviewed,
        "the contract changed: look at `TEPAL_UPDATE_CONTRACT=1 cargo test` and `git diff`"
    );
}

#[tokio::test]
async fn the_contract_has_the_limits_as_they_are_set() {
    let site = Site::start(&[("MAX_BODY_BYTES", "2048")]).await;
    let contract = site.client.get("/openapi.json").await.json();
    let example = &contract["components"]["examples"]["payload_too_large"]["value"];
    assert_eq!(example["detail"], "The body must hold at most 2048 bytes");
}

#[tokio::test]
async fn every_operation_is_described_with_examples_and_problems() {
    let site = Site::start(&[]).await;
    let contract = site.client.get("/openapi.json").await.json();
    assert_eq!(contract["openapi"], "3.1.0");
    let mut operations = 0;
    for (path, item) in contract["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            operations += 1;
            let name = format!("{method} {path}");
            for (status, answer) in operation["responses"].as_object().unwrap() {
                for (media_type, body) in answer["content"].as_object().into_iter().flatten() {
                    let has_example = body.get("example").or_else(|| body.get("examples")).is_some();
                    assert!(has_example, "{name} {status} {media_type}");
                }
            }
            for (media_type, body) in operation["requestBody"]["content"].as_object().into_iter().flatten() {
                assert!(body.get("example").is_some(), "{name} {media_type}");
            }
            for status in ["400", "414", "431"] {
                let is_protocol = path.starts_with("/v1") || path.starts_with("/v2");
                let media_type = if is_protocol { "application/json" } else { "application/problem+json" };
                let problem = &operation["responses"][status]["content"][media_type];
                assert!(problem.is_object(), "{name} {status}");
            }
        }
    }
    assert_eq!(operations, 44);
    // The router cannot match verbs.
    let verbs = contract["paths"].as_object().unwrap().keys().filter(|path| path.contains(':'));
    assert_eq!(verbs.count(), 6);
    // Every example of a request is accepted as it stands.
    for path in ["/predict", "/predict/batch", "/jobs/lookup", "/v2/repository/index"] {
        let example =
            &contract["paths"][path]["post"]["requestBody"]["content"]["application/json"]["example"];
        assert!(site.client.post_json(path, example).await.status < 300, "{path}");
    }
}

#[tokio::test]
async fn the_page_for_people_needs_nothing_from_elsewhere() {
    let site = Site::start(&[]).await;
    let page = site.client.get("/docs").await;
    assert_eq!(page.status, 200);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("connect-src 'self'"), "{policy}");
    let text = page.text();
    for elsewhere in ["http://", "https://", "//cdn", "@import", " src="] {
        assert!(!text.contains(elsewhere), "{elsewhere}");
    }
}

/// Status, media type and body of a raw answer.
fn problem(answer: &[u8]) -> (u16, String, Value) {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text}"));
    let status = head[9..12].parse().unwrap();
    let media_type = head.lines().find_map(|line| line.strip_prefix("content-type: ")).unwrap_or("none");
    (status, media_type.to_owned(), serde_json::from_str(body).unwrap_or_else(|_| panic!("{text}")))
}

#[tokio::test]
async fn every_error_of_the_framework_is_a_problem() {
    let site = Site::start(&[]).await;
    let long =
        |length| format!("GET /{} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", "a".repeat(length));
    let headers = |count: usize, length: usize| {
        let lines: String = (0..count).map(|n| format!("a{n}: {}\r\n", "b".repeat(length))).collect();
        format!("GET /jobs HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{lines}\r\n")
    };
    for (request, status, code) in [
        ("nonsense\r\n\r\n".to_owned(), 400, "malformed_request"),
        ("GET / HTTP/1.1\r\nbad header\r\n\r\n".to_owned(), 400, "malformed_request"),
        (long(9_000), 414, "uri_too_long"),
        (long(70_000), 414, "uri_too_long"),
        (headers(110, 1), 431, "headers_too_large"),
        (headers(5, 8_000), 431, "headers_too_large"),
        (headers(50, 16_000), 431, "headers_too_large"),
    ] {
        let (given, media_type, body) = problem(&raw(site.proxy.addr(), request.as_bytes()).await);
        assert_eq!((given, media_type.as_str()), (status, "application/problem+json"), "{body}");
        assert_eq!((&body["status"], &body["code"]), (&json!(status), &json!(code)));
        assert!(body["request_id"].is_string());
    }
    let json = ("content-type", "application/json");
    for (method, path, headers, status) in [
        (Method::GET, "/nowhere", vec![], 404),
        (Method::PATCH, "/job/x", vec![], 405),
        (Method::GET, "/jobs", vec![("accept", "text/html")], 406),
        (Method::POST, "/predict", vec![("content-type", "text/plain")], 415),
        (Method::POST, "/predict", vec![json], 400),
    ] {
        let answer = site.client.request(method, path, &headers, "").await;
        assert_eq!((answer.status, answer.json()["status"].as_u64()), (status, Some(u64::from(status))));
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        if status == 405 {
            assert_eq!(answer.header("allow"), Some("GET,HEAD,DELETE"));
        }
    }
    let large = site.client.post_raw("/predict", vec![b' '; 9 << 20]).await;
    assert_eq!((large.status, large.json()["code"].as_str()), (413, Some("payload_too_large")));
    // The service goes on.
    assert_eq!(site.client.get("/livez").await.status, 200);
}
