//! API keys: which requests are accepted.

use serde_json::{Value, json};
use tepal_tests::http::{Answer, Method};

use crate::{
    expect::{invalid, problem},
    gateway::{FLOWER, Gateway, JSON},
    keys::Keys,
};

const NOT_LET_IN: &str = "The request needs a valid API key, in the header X-API-Key or as a bearer token";
const CHALLENGE: &str = r#"ApiKey realm="tepal", header="X-API-Key""#;

/// What is left after the request, and whose limit it is.
fn left(answer: &Answer) -> (Option<&str>, Option<&str>) {
    let state = answer.header("ratelimit").map(|state| state.split(";t=").next().unwrap());
    (answer.header("ratelimit-policy"), state)
}

fn batch(jobs: usize) -> String {
    format!("[{}]", vec![FLOWER; jobs].join(","))
}

#[tokio::test]
async fn without_a_file_nobody_is_asked_for_a_key() {
    let gateway = Gateway::start().await;
    let id = gateway.submit_as("whatever").await;
    assert_eq!(gateway.get(&format!("/job/{id}")).await.status, 200);
    assert_eq!(gateway.delete(&format!("/job/{id}")).await.status, 200);
}

#[tokio::test]
async fn only_a_valid_key_is_accepted_and_a_rejection_does_not_say_why() {
    let keys = Keys::with("");
    let (key, other) = (keys.add(""), keys.add(""));
    let gateway = keys.gateway(&[]).await;
    gateway.submit_as(&key).await;
    gateway.submit_as(&other).await;
    let stored = gateway.keys();

    let (start, end) = key.split_at(key.len() - 1);
    let last = if end == "0" { '1' } else { '0' };
    let another_id = key.replacen(crate::keys::id_of(&key), crate::keys::id_of(&other), 1);
    let unknown = key.replacen(crate::keys::id_of(&key), "nobody", 1);
    let expected = problem(401, "unauthorized", "Unauthorized").header("www-authenticate", CHALLENGE);
    for wrong in
        ["", "nonsense", &format!("{start}{last}"), start, &another_id, &unknown, &key.to_uppercase()]
    {
        let answer = gateway.as_key(wrong, Method::POST, "/predict", FLOWER).await;
        expected.assert(&answer, "/predict", NOT_LET_IN);
    }
    let twice = [JSON, ("x-api-key", key.as_str()), ("x-api-key", key.as_str())];
    expected.assert(&gateway.send(Method::POST, "/predict", &twice, FLOWER).await, "/predict", NOT_LET_IN);

    assert_eq!(gateway.keys(), stored);
    let metrics = gateway.get("/metrics").await;
    let refused = ["missing_key", "malformed_key", "unknown_key", "wrong_secret", "insufficient_scope"]
        .map(|reason| metrics.metric(&format!("tepal_http_unauthorized_total{{reason=\"{reason}\"}}")));
    assert_eq!(refused, [1.0, 3.0, 1.0, 3.0, 0.0], "{}", metrics.text());
}

/// Asserts that the answer asks for a key with this scope.
#[track_caller]
fn assert_lacks(answer: &Answer, path: &str, scope: &str) {
    let detail = format!("This needs a key with the scope {scope}");
    if path.starts_with("/v1") || path.starts_with("/v2") {
        return crate::v2::assert_error(answer, 403, "insufficient_scope", &detail);
    }
    problem(403, "insufficient_scope", "Insufficient scope").assert(answer, path, &detail);
}

#[tokio::test]
async fn every_operation_asks_for_the_scope_that_the_contract_names() {
    let keys = Keys::with("");
    let [read, submit, admin] =
        ["read", "submit", "admin"].map(|scope| keys.add(&format!("--scope {scope}")));
    let gateway = keys.gateway(&[]).await;
    let contract = gateway.get("/openapi.json").await.json();
    let mut asked = Vec::new();
    for (path, item) in contract["paths"].as_object().unwrap() {
        for (name, operation) in item.as_object().unwrap() {
            let alternatives = operation["security"].as_array().map_or(0, Vec::len);
            assert!(alternatives < 2, "a key is needed: {}", operation["security"]);
            let method: Method = name.to_uppercase().parse().unwrap();
            let real_path = path.replace("{id}", "none").replace("{name}", "iris").replace("{version}", "1");
            let real_path = real_path.replace("{label}", "none");
            let answer = gateway.as_key("", method.clone(), &real_path, "").await;
            let Some(scope) = operation["security"][0]["apiKey"][0].as_str() else {
                assert!(![401, 403].contains(&answer.status), "{name} {path} is open");
                continue;
            };
            assert_eq!(answer.status, 401, "{name} {path}");
            let needs_both = operation["security"][0]["apiKey"].as_array().unwrap().len() == 2;
            let (right, wrong) = match scope {
                _ if needs_both => (&admin, &read),
                "read" => (&read, &submit),
                "submit" => (&submit, &read),
                _ => (&admin, &submit),
            };
            let answer = gateway.as_key(wrong, method.clone(), &real_path, "").await;
            assert_lacks(&answer, &real_path, scope);
            for key in [right, &admin] {
                let answer = gateway.as_key(key, method.clone(), &real_path, "").await;
                assert!(![401, 403].contains(&answer.status), "{name} {path}: {}", answer.text());
            }
            asked.push(format!("{scope} {name} {path}"));
        }
    }
    asked.sort();
    assert_eq!(asked, OPERATIONS);
    // A method of another name is the same operation.
    assert_eq!(gateway.as_key("", Method::HEAD, "/jobs", "").await.status, 401);
}

/// Every operation that is not open, with its first scope.
const OPERATIONS: [&str; 36] = [
    "admin delete /models/{name}",
    "read get /job/{id}",
    "read get /jobs",
    "read get /metadata",
    "read get /models",
    "read get /models/{name}",
    "read get /v1/models",
    "read get /v1/models/{name}",
    "read get /v1/models/{name}/labels/{label}",
    "read get /v1/models/{name}/labels/{label}/metadata",
    "read get /v1/models/{name}/metadata",
    "read get /v1/models/{name}/versions/{version}",
    "read get /v1/models/{name}/versions/{version}/metadata",
    "read get /v2",
    "read get /v2/models",
    "read get /v2/models/{name}",
    "read get /v2/models/{name}/config",
    "read get /v2/models/{name}/ready",
    "read get /v2/models/{name}/versions/{version}",
    "read get /v2/models/{name}/versions/{version}/config",
    "read get /v2/models/{name}/versions/{version}/ready",
    "read post /jobs/lookup",
    "read post /v2/repository/index",
    "submit delete /job/{id}",
    "submit post /job/{id}/retry",
    "submit post /predict",
    "submit post /predict/batch",
    "submit post /predict/test",
    "submit post /v1/models/{name}/labels/{label}:classify",
    "submit post /v1/models/{name}/labels/{label}:predict",
    "submit post /v1/models/{name}/versions/{version}:classify",
    "submit post /v1/models/{name}/versions/{version}:predict",
    "submit post /v1/models/{name}:classify",
    "submit post /v1/models/{name}:predict",
    "submit post /v2/models/{name}/infer",
    "submit post /v2/models/{name}/versions/{version}/infer",
];

#[tokio::test]
async fn the_contract_says_where_the_service_is_and_who_needs_a_key() {
    let keys = Keys::with("[anonymous]\nscopes = [\"read\"]\n");
    keys.add("");
    let settings = [("PUBLIC_URL", "https://api.example/tepal/")];
    let contract = keys.gateway(&settings).await.get("/openapi.json").await.json();
    assert_eq!(contract["servers"], json!([{"url": "https://api.example/tepal"}]));
    let security = |method: &str, path: &str| contract["paths"][path][method]["security"].clone();
    assert_eq!(security("get", "/jobs"), json!([{"apiKey": ["read"]}, {}]));
    assert_eq!(security("post", "/predict"), json!([{"apiKey": ["submit"]}]));
    assert_eq!(security("get", "/health"), Value::Null);

    let contract = Gateway::start().await.get("/openapi.json").await.json();
    assert_eq!(contract["servers"], json!([{"url": "/"}]));
    assert!(!contract["paths"].to_string().contains("\"security\":"), "there are no keys");
}

#[tokio::test]
async fn callers_without_a_key_may_do_what_the_file_says() {
    let keys = Keys::with("[anonymous]\nscopes = [\"read\"]\n");
    let gateway = keys.gateway(&[]).await;
    assert_eq!(gateway.get("/jobs").await.json(), json!({"jobs": []}));
    assert_eq!(gateway.predict(FLOWER).await.status, 401, "with a key it might be allowed");
    // A wrong key is no lesser one.
    assert_eq!(gateway.as_key("tepal_a_b", Method::GET, "/jobs", "").await.status, 401);
}

#[tokio::test]
async fn who_may_only_submit_is_not_shown_a_result() {
    let keys = Keys::with("");
    let key = keys.add("--scope submit");
    let gateway = keys.gateway(&[]).await;
    let headers = [JSON, ("x-api-key", &key), ("prefer", "wait=60")];
    let answer = gateway.send(Method::POST, "/predict", &headers, FLOWER).await;
    assert_eq!((answer.status, answer.header("preference-applied")), (202, None));
}

#[tokio::test]
async fn a_key_has_its_own_limit_instead_of_its_addresss() {
    let keys = Keys::with("[anonymous]\nscopes = [\"read\"]\n");
    let (small, free) = (keys.add("--requests-per-minute 2"), keys.add(""));
    let gateway = keys.gateway(&[("RATE_LIMIT_PER_MINUTE", "3")]).await;
    let path = format!("/job/{}", gateway.submit_as(&free).await);
    let get = async |key: &str| gateway.as_key(key, Method::GET, &path, "").await;
    for state in [r#""key";r=1"#, r#""key";r=0"#] {
        assert_eq!(left(&get(&small).await), (Some(r#""key";q=2;w=60"#), Some(state)));
    }
    let refused = get(&small).await;
    assert_eq!(refused.status, 429);
    assert!(refused.json()["detail"].as_str().unwrap().starts_with("Too many requests with this key; "));
    assert!((1..=60).contains(&refused.header("retry-after").unwrap().parse::<u32>().unwrap()));
    for _ in 0..10 {
        assert_eq!((get(&free).await.status, left(&get(&free).await)), (200, (None, None)));
    }
    // None of them was counted with the address.
    assert_eq!(left(&get("").await), (Some(r#""client";q=3;w=60"#), Some(r#""client";r=2"#)));
}

#[tokio::test]
async fn wrong_keys_count_with_the_address_so_that_nobody_tries_many() {
    let keys = Keys::with("");
    let key = keys.add("");
    let gateway = keys.gateway(&[("RATE_LIMIT_PER_MINUTE", "2")]).await;
    let get = async |key: &str| gateway.as_key(key, Method::GET, "/jobs", "").await.status;
    let wrong = format!("{key}0");
    assert_eq!([get(&wrong).await, get("").await, get(&wrong).await, get("").await], [401, 401, 429, 429]);
    // A client with a key is not affected, even at the same address.
    assert_eq!(get(&key).await, 200);
}

#[tokio::test]
async fn each_job_of_a_batch_counts() {
    let keys = Keys::with("[anonymous]\nscopes = [\"submit\"]\n");
    let key = keys.add("--requests-per-minute 6");
    let gateway = keys.gateway(&[("RATE_LIMIT_PER_MINUTE", "4")]).await;
    let send =
        async |key: &str, jobs| gateway.as_key(key, Method::POST, "/predict/batch", &batch(jobs)).await;
    for (key, policy, limit) in [("", "client", 4), (key.as_str(), "key", 6)] {
        let answer = send(key, limit - 2).await;
        assert_eq!((answer.status, left(&answer).1), (202, Some(format!(r#""{policy}";r=2"#).as_str())));
        let stored = gateway.keys();

        let answer = send(key, 3).await;
        let seconds: usize = answer.header("retry-after").unwrap().parse().unwrap();
        assert_eq!((answer.status, left(&answer).1), (429, Some(format!(r#""{policy}";r=1"#).as_str())));
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(
            detail.ends_with(&format!("; one that counts as 3 is accepted after {seconds} s")),
            "{detail}"
        );
        // What the first batch took must come back before there is room for three.
        assert!((30..=60).contains(&seconds), "{seconds}");
        assert_eq!(gateway.keys(), stored);
    }
}

#[tokio::test]
async fn a_batch_above_the_limit_of_a_minute_is_rejected_as_too_large() {
    let gateway = Gateway::with(&[("RATE_LIMIT_PER_MINUTE", "5")]).await;
    let answer = gateway.send(Method::POST, "/predict/batch", &[JSON], &batch(6)).await;
    let detail = "must hold at most 5 jobs: each counts as a request, and 5 requests a minute are allowed";
    invalid(&[("", "too_many_jobs", detail)])
        .header("ratelimit-policy", r#""client";q=5;w=60"#)
        .header("ratelimit", r#""client";r=4;t=60"#)
        .assert(&answer, "/predict/batch", &format!("The body {detail}"));
    assert_eq!(gateway.log_length(), 0);
    let answer = gateway.send(Method::POST, "/predict/batch", &[JSON], &batch(4)).await;
    assert_eq!((answer.status, left(&answer).1), (202, Some(r#""client";r=0"#)));
}
