//! How many requests a client may make.

use crate::{
    expect::problem,
    gateway::{FLOWER, Gateway, JSON},
};
use tepal_tests::http::{Answer, Method};

const LIMIT: (&str, &str) = ("RATE_LIMIT_PER_MINUTE", "3");

/// What is left after the request.
fn remaining(answer: &Answer) -> Option<&str> {
    answer.header("ratelimit").and_then(|state| state.strip_prefix(r#""client";r="#)?.split(';').next())
}

#[tokio::test]
async fn a_client_over_its_limit_is_told_when_to_come_again_and_stores_nothing() {
    let gateway = Gateway::with(&[LIMIT]).await;
    for left in ["2", "1", "0"] {
        let answer = gateway.predict(FLOWER).await;
        assert_eq!((answer.status, remaining(&answer)), (202, Some(left)), "{}", answer.text());
        assert_eq!(answer.header("ratelimit-policy"), Some(r#""client";q=3;w=60"#));
    }
    let stored = gateway.keys();

    let answer = gateway.predict(FLOWER).await;

    let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=20).contains(&seconds), "{seconds}");
    let detail = format!("Too many requests from this address; the next is taken after {seconds} s");
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
    for path in ["/health", "/livez", "/readyz", "/metrics", "/openapi.json", "/docs", "/nothing"] {
        let answer = gateway.get(path).await;
        assert_eq!((answer.header("ratelimit"), answer.status == 429), (None, false), "{path}");
    }
    // Refused for another reason, it counts as well.
    assert_eq!(remaining(&gateway.predict("{").await), Some("2"));
    assert_eq!(remaining(&gateway.get("/job/none").await), Some("1"));
    assert_eq!(remaining(&gateway.get("/jobs").await), Some("0"));
    assert_eq!(gateway.get("/metadata").await.status, 429);
    assert_eq!(gateway.get("/health").await.header("ratelimit"), None);
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
