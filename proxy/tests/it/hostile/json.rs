//! Bodies of the largest size that are as costly as JSON can be.

use futures_util::future::join_all;
use serde_json::Value;
use tepal_tests::http::Method;

use super::{Siege, ask, outcome, post};
use crate::{
    expect::invalid,
    gateway::{FLOWER, Gateway, JSON},
};

/// `text` over and over, between `start` and `end`, as far as 1 MiB reaches.
fn filled(start: &str, text: &str, end: &str) -> Vec<u8> {
    let times = ((1 << 20) - start.len() - end.len()) / text.len();
    let mut body = String::with_capacity(1 << 20);
    body.push_str(start);
    for _ in 0..times {
        body.push_str(text);
    }
    // The last separator.
    let body = body.trim_end_matches(',').to_owned() + end;
    body.into_bytes()
}

/// Sends each body ten times at once to its path, while others are served.
async fn assert_refused(what: &'static str, most: u64, bodies: Vec<(&str, Vec<u8>, u16, &str)>) {
    let mut siege = Siege::lay(what, &[]).await;
    let addr = siege.addr();
    for (path, body, status, code) in bodies {
        let request = post(path, &body);
        let attack = tokio::spawn(async move { join_all((0..10).map(|_| ask(addr, &request))).await });
        siege.others_are_served().await;
        for answer in attack.await.unwrap() {
            let (given, given_code) = outcome(&answer);
            // Where many are read at once, they may take all the memory.
            let is_refused = (given, given_code.as_str()) == (503, "overloaded");
            assert!(
                is_refused || (given, given_code.as_str()) == (status, code),
                "{path}: {given} {given_code}"
            );
        }
    }
    siege.held(10, most);
}

#[tokio::test]
async fn json_nested_ten_thousand_deep() {
    let deep = |path, open: &str| (path, open.repeat(10_000).into_bytes(), 400, "invalid_json");
    let bodies = [("/predict", "{\"data\":"), ("/predict/batch", "["), ("/jobs/lookup", "{\"job_ids\":[")];
    assert_refused("deep JSON", 96, bodies.map(|(path, open)| deep(path, open)).into()).await;
}

#[tokio::test]
async fn lists_of_half_a_million_elements() {
    let lists = [
        ("/predict", filled("{\"data\":[", "1,", "]}")),
        ("/predict/batch", filled("[", "0,", "]")),
        ("/jobs/lookup", filled("{\"job_ids\":[", "\"\",", "]}")),
    ];
    let bodies = lists.map(|(path, body)| (path, body, 422, "invalid_input"));
    assert_refused("wide lists", 192, bodies.into()).await;
}

#[tokio::test]
async fn objects_of_very_many_members() {
    let members: String = (0..75_000).fold(String::new(), |all, number| all + &format!("\"{number:x}\":0,"));
    let many = format!("{{{}}}", members.trim_end_matches(','));
    let objects = [
        ("/predict", many.clone().into_bytes()),
        ("/predict", filled("{", "\"data\":0,", "}")),
        ("/predict/batch", filled("[", "{\"\":0},", "]")),
        ("/jobs/lookup", many.into_bytes()),
    ];
    let bodies = objects.map(|(path, body)| (path, body, 422, "invalid_input"));
    assert_refused("wide objects", 192, bodies.into()).await;
}

#[tokio::test]
async fn a_member_that_is_given_twice_is_refused() {
    let gateway = Gateway::start().await;
    let what = "must be given only once";
    let row = "[[5.1, 3.5, 1.4, 0.2]]";
    for (body, place) in [
        (format!(r#"{{"data": {row}, "data": {row}}}"#), "/data"),
        (format!(r#"{{"data": {row}, "\u0064ata": [[1, 1, 1, 1]]}}"#), "/data"),
        (format!(r#"{{"priority": "low", "data": {row}, "priority": "low"}}"#), "/priority"),
        (r#"{"data": [[{"x": 1, "x": 2}, 1, 1, 1]]}"#.to_owned(), "/data/0/0/x"),
    ] {
        let answer = gateway.predict(&body).await;
        invalid(&[(place, "repeated", what)]).assert(&answer, "/predict", &format!("{place} {what}"));
    }
    let twice = r#"{"job_ids": ["a"], "job_ids": ["b"]}"#;
    let answer = gateway.send(Method::POST, "/jobs/lookup", &[JSON], twice).await;
    invalid(&[("/job_ids", "repeated", what)]).assert(&answer, "/jobs/lookup", &format!("/job_ids {what}"));
    assert!(gateway.keys().is_empty(), "{:?}", gateway.keys());
}

#[tokio::test]
async fn a_member_that_is_given_twice_spoils_only_its_own_job() {
    let gateway = Gateway::start().await;
    let twice = r#"{"data": [[1, 1, 1, 1]], "data": [[5.1, 3.5, 1.4, 0.2]]}"#;
    let lines = [("content-type", "application/x-ndjson")];
    for (headers, body) in [([JSON], format!("[{FLOWER}, {twice}]")), (lines, format!("{FLOWER}\n{twice}\n"))]
    {
        let answer = gateway.send(Method::POST, "/predict/batch", &headers, &body).await;
        assert_eq!(answer.status, 207, "{}", answer.text());
        let answer = answer.json();
        assert_eq!(answer["jobs"][0]["status"], "pending");
        let error = &answer["jobs"][1]["problem"]["errors"][0];
        assert_eq!((&error["pointer"], &error["code"]), (&Value::from("/data"), &Value::from("repeated")));
    }
    assert_eq!(gateway.log_length(), 2);
}
