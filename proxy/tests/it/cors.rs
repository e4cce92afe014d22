//! CORS: whose pages may use the API.

use tepal_tests::http::{Answer, Method};

use crate::gateway::{FLOWER, Gateway, JSON};

const PAGE: (&str, &str) = ("origin", "https://app.example");
const OTHER_PAGE: (&str, &str) = ("origin", "https://other.example");
const PREFLIGHT: [(&str, &str); 2] = [
    ("access-control-request-method", "POST"),
    ("access-control-request-headers", "content-type,idempotency-key,x-api-key"),
];

async fn preflight(gateway: &Gateway, page: (&str, &str)) -> Answer {
    gateway.send(Method::OPTIONS, "/predict", &[&[page], &PREFLIGHT[..]].concat(), "").await
}

async fn submission(gateway: &Gateway, page: (&str, &str)) -> Answer {
    gateway.send(Method::POST, "/predict", &[JSON, page], FLOWER).await
}

/// Everything that begins with `access-control-`.
fn permissions(answer: &Answer) -> Vec<&str> {
    answer
        .headers
        .keys()
        .map(|name| name.as_str())
        .filter(|name| name.starts_with("access-control"))
        .collect()
}

/// All that an answer depends on.
fn varies(answer: &Answer) -> String {
    let values = answer.headers.get_all("vary").iter();
    values.map(|value| value.to_str().unwrap()).collect::<Vec<_>>().join(", ")
}

#[tokio::test]
async fn unless_origins_are_named_no_page_may_do_anything() {
    let gateway = Gateway::start().await;
    let preflight = preflight(&gateway, PAGE).await;
    assert_eq!((preflight.status, permissions(&preflight)), (405, vec![]));
    let submission = submission(&gateway, PAGE).await;
    assert_eq!((submission.status, permissions(&submission)), (202, vec![]));
    assert_eq!(varies(&submission), "");
}

#[tokio::test]
async fn pages_of_a_named_origin_may_use_the_api_and_no_others() {
    let origins = ("CORS_ALLOWED_ORIGINS", "https://app.example, http://localhost:3000");
    let gateway = Gateway::with(&[origins]).await;

    let allowed = preflight(&gateway, PAGE).await;
    assert_eq!(allowed.status, 200);
    assert_eq!(allowed.header("access-control-allow-origin"), Some(PAGE.1));
    assert_eq!(allowed.header("access-control-allow-methods"), Some("GET,POST,DELETE"));
    let headers = allowed.header("access-control-allow-headers").unwrap();
    for name in [
        "content-type",
        "x-api-key",
        "idempotency-key",
        "prefer",
        "traceparent",
        "x-request-id",
        "if-none-match",
        "last-event-id",
    ] {
        assert!(headers.split(',').any(|header| header == name), "{name} is not in {headers}");
    }
    assert_eq!(allowed.header("x-content-type-options"), Some("nosniff"), "preflights are answers, too");

    let accepted = submission(&gateway, PAGE).await;
    assert_eq!(accepted.header("access-control-allow-origin"), Some(PAGE.1));
    let exposed = accepted.header("access-control-expose-headers").unwrap();
    for name in [
        "location",
        "retry-after",
        "etag",
        "ratelimit",
        "ratelimit-policy",
        "preference-applied",
        "x-request-id",
    ] {
        assert!(exposed.split(',').any(|header| header == name), "{name} is not in {exposed}");
    }
    assert!(varies(&accepted).contains("origin"), "caches must tell origins apart: {}", varies(&accepted));

    for answer in [preflight(&gateway, OTHER_PAGE).await, submission(&gateway, OTHER_PAGE).await] {
        assert_eq!(answer.header("access-control-allow-origin"), None);
        assert!(varies(&answer).contains("origin"), "{}", varies(&answer));
    }
}

#[tokio::test]
async fn with_a_star_every_page_may() {
    let gateway = Gateway::with(&[("CORS_ALLOWED_ORIGINS", "*")]).await;
    for answer in [preflight(&gateway, PAGE).await, submission(&gateway, OTHER_PAGE).await] {
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        assert_eq!(answer.header("access-control-allow-credentials"), None);
    }
}

#[tokio::test]
async fn preflights_are_not_counted_and_refusals_can_be_read_by_the_page() {
    let settings = [("CORS_ALLOWED_ORIGINS", "https://app.example"), ("RATE_LIMIT_PER_MINUTE", "2")];
    let gateway = Gateway::with(&settings).await;
    for _ in 0..3 {
        assert_eq!(preflight(&gateway, PAGE).await.status, 200);
    }
    let missing = gateway.send(Method::GET, "/nowhere", &[PAGE], "").await;
    assert_eq!((missing.status, missing.header("access-control-allow-origin")), (404, Some(PAGE.1)));
    assert_eq!(submission(&gateway, PAGE).await.status, 202);
    let refused = submission(&gateway, PAGE).await;
    assert_eq!((refused.status, refused.header("access-control-allow-origin")), (429, Some(PAGE.1)));
}
