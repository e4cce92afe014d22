//! Wrong requests: each kind with its whole answer. Nothing may be left of any.

use serde_json::{Value, json};
use tepal_shared::job::JobId;
use tepal_tests::http::Method;

use crate::{
    expect::{Problem, assert_json, invalid, job_not_found, problem},
    gateway::{FLOWER, Gateway, JSON},
};

/// Asserts that each body is refused as 422 with this mistake, and that nothing is stored.
async fn assert_refused(cases: &[(&str, &str, &str, &str)]) {
    let gateway = Gateway::start().await;
    for (body, place, code, what) in cases {
        let subject = if place.is_empty() { "The body" } else { place };
        let answer = gateway.predict(body).await;
        invalid(&[(place, code, what)]).assert(&answer, "/predict", &format!("{subject} {what}"));
    }
    assert!(gateway.keys().is_empty(), "{:?}", gateway.keys());
}

fn row(value: &str) -> String {
    format!(r#"{{"data": [[{value}, 3.5, 1.4, 0.2]]}}"#)
}

#[tokio::test]
async fn a_body_that_is_not_json() {
    let gateway = Gateway::start().await;
    let refused = problem(400, "invalid_json", "Invalid JSON");
    let words =
        r#"expected value at line 1 column 12; write NaN, Infinity and -Infinity as strings, as in "NaN""#;
    for (body, why) in [
        ("", "it is empty"),
        ("flowers", "expected ident at line 1 column 2"),
        (r#"{"data": [[5.1"#, "EOF while parsing a list at line 1 column 14"),
        (r#"{"data": [[5.1, 3.5, 1.4, 0.2]]} {}"#, "trailing characters at line 1 column 34"),
        (&row("NaN"), words),
        (&row("Infinity"), words),
        (&row("1e999, ]"), "expected value at line 1 column 19"),
        (&row("05.1"), "invalid number at line 1 column 13"),
        (&"[".repeat(200), "recursion limit exceeded at line 1 column 128"),
    ] {
        refused.assert(
            &gateway.predict(body).await,
            "/predict",
            &format!("The body is not valid JSON: {why}"),
        );
    }
    assert!(gateway.keys().is_empty());
}

#[tokio::test]
async fn a_body_that_is_not_utf_8() {
    let gateway = Gateway::start().await;
    let headers = [JSON, ("x-request-id", "r-1")];
    let answer = gateway
        .proxy
        .client()
        .request(Method::POST, "/predict", &headers, &b"{\"data\": \"\xff\"}"[..])
        .await;
    let refused = problem(400, "invalid_json", "Invalid JSON");
    refused.assert(&answer, "/predict", "The body is not valid JSON: byte 10 is not UTF-8");
}

#[tokio::test]
async fn json_of_another_shape() {
    assert_refused(&[
        ("[[5.1, 3.5, 1.4, 0.2]]", "", "type", "must be an object with the field data, not a list"),
        ("null", "", "type", "must be an object with the field data, not null"),
        (r#"{"data": null}"#, "/data", "type", "must be a list of rows, not null"),
        (r#"{"data": {"a": 1}}"#, "/data", "type", "must be a list of rows, not an object"),
        (r#"{"data": [5.1]}"#, "/data/0", "type", "must be a list of 4 values, not a number"),
    ])
    .await;
}

#[tokio::test]
async fn a_flat_row_is_reported_once_for_each_number() {
    let gateway = Gateway::start().await;
    let answer = gateway.predict(r#"{"data": [5.1, 3.5]}"#).await;
    let detail = "must be a list of 4 values, not a number";
    let expected = invalid(&[("/data/0", "type", detail), ("/data/1", "type", detail)]);
    expected.assert(&answer, "/predict", &format!("/data/0 {detail} (and 1 more)"));
}

#[tokio::test]
async fn missing_data() {
    assert_refused(&[("{}", "/data", "missing", "is missing")]).await;
}

#[tokio::test]
async fn no_rows_and_empty_rows() {
    assert_refused(&[
        (r#"{"data": []}"#, "/data", "empty", "must hold 1 to 1024 rows, but is empty"),
        (r#"{"data": [[]]}"#, "/data/0", "length", "must hold exactly 4 values, not 0"),
    ])
    .await;
}

#[tokio::test]
async fn three_and_five_features() {
    let five = r#"{"data": [[5.1, 3.5, 1.4, 0.2], [5.1, 3.5, 1.4, 0.2, 1]]}"#;
    assert_refused(&[
        (r#"{"data": [[5.1, 3.5, 1.4]]}"#, "/data/0", "length", "must hold exactly 4 values, not 3"),
        (five, "/data/1", "length", "must hold exactly 4 values, not 5"),
    ])
    .await;
}

#[tokio::test]
async fn features_that_are_no_numbers() {
    let last = r#"{"data": [[5.1, 3.5, 1.4, null]]}"#;
    assert_refused(&[
        (&row(r#""5.1""#), "/data/0/0", "type", "sepal_length must be a number, not a string"),
        (&row("null"), "/data/0/0", "type", "sepal_length must be a number, not null"),
        (&row("true"), "/data/0/0", "type", "sepal_length must be a number, not a boolean"),
        (&row("[5.1]"), "/data/0/0", "type", "sepal_length must be a number, not a list"),
        (last, "/data/0/3", "type", "petal_width must be a number, not null"),
    ])
    .await;
}

#[tokio::test]
async fn features_out_of_range() {
    let bounds = |given| format!("sepal_length must be greater than 0 and less than 10, but is {given}");
    let not_finite = "sepal_length must be a finite 32-bit float, and 1e+39 is none";
    let nearly_ten = bounds("9.9999999999");
    let beyond = |given| format!("sepal_length must be a finite 32-bit float, and {given} is none");
    let digits = "9".repeat(400);
    assert_refused(&[
        (&row("1e39"), "/data/0/0", "not_representable", not_finite),
        (&row("1e400"), "/data/0/0", "not_representable", &beyond("1e400")),
        (&row("-1E+400"), "/data/0/0", "not_representable", &beyond("-1E+400")),
        (&row(&digits), "/data/0/0", "not_representable", &beyond(&format!("{}...", &digits[..40]))),
        (r#"{"data": 1e400}"#, "/data", "type", "must be a list of rows, not a number"),
        (r#"{"data": [1e400]}"#, "/data/0", "type", "must be a list of 4 values, not a number"),
        (&row("0.0"), "/data/0/0", "out_of_range", &bounds("0.0")),
        (&row("10.0"), "/data/0/0", "out_of_range", &bounds("10.0")),
        (&row("-1"), "/data/0/0", "out_of_range", &bounds("-1")),
        (&row("9.9999999999"), "/data/0/0", "out_of_range", &nearly_ten),
        (&row("1e-400"), "/data/0/0", "out_of_range", &bounds("0.0")),
    ])
    .await;
}

#[tokio::test]
async fn the_first_twenty_of_many_mistakes_are_reported() {
    let gateway = Gateway::start().await;
    let answer = gateway.predict(&json!({"data": vec![json!([0, 0, 0, 0]); 6]}).to_string()).await;
    let errors = answer.json()["errors"].as_array().unwrap().len();
    assert_eq!((answer.status, errors), (422, 20));
    assert!(answer.json()["detail"].as_str().unwrap().ends_with("(and 19 more)"), "{}", answer.text());
}

#[tokio::test]
async fn one_row_more_than_allowed() {
    let gateway = Gateway::start().await;
    let rows = |count| json!({"data": vec![json!([5.1, 3.5, 1.4, 0.2]); count]}).to_string();
    let what = "must hold 1 to 1024 rows, not 1025";
    let answer = gateway.predict(&rows(1025)).await;
    invalid(&[("/data", "too_many_rows", what)]).assert(&answer, "/predict", &format!("/data {what}"));
    assert!(gateway.keys().is_empty());

    assert_eq!(gateway.predict(&rows(1024)).await.status, 202);
}

#[tokio::test]
async fn a_number_that_no_float_holds_refuses_only_its_own_job_of_a_batch() {
    let gateway = Gateway::start().await;
    let (good, bad) = (FLOWER, row("1e400"));
    let list = format!("[{good}, {bad}, {good}]");
    let lines = format!("{good}\n{bad}\n{good}\n");
    for (media_type, body) in [("application/json", list), ("application/x-ndjson", lines)] {
        let headers = [("content-type", media_type)];
        let answer = gateway.send(Method::POST, "/predict/batch", &headers, &body).await;
        assert_eq!(answer.status, 207, "{}", answer.text());
        let jobs = answer.json()["jobs"].clone();
        assert_eq!((&answer.json()["accepted"], &answer.json()["refused"]), (&json!(2), &json!(1)));
        let error = &jobs[1]["problem"]["errors"][0];
        assert_eq!((&error["pointer"], &error["code"]), (&json!("/data/0/0"), &json!("not_representable")));
        assert!(jobs[0]["job_id"].is_string() && jobs[2]["job_id"].is_string(), "{}", answer.text());
    }
}

#[tokio::test]
async fn options_that_cannot_be_used() {
    let limit =
        |name: &str, given: &str| format!("{name} must be greater than 0 and at most 86400, but is {given}");
    let gateway = Gateway::start().await;
    for (option, place, code, detail) in [
        (
            r#""priority": "urgent""#,
            "/priority",
            "unknown_value",
            "must be one of high, normal, low".to_owned(),
        ),
        (
            r#""priority": 1"#,
            "/priority",
            "type",
            "must be one of high, normal, low, not a number".to_owned(),
        ),
        (r#""max_queue_seconds": 0"#, "/max_queue_seconds", "out_of_range", limit("", "0")),
        (r#""max_queue_seconds": 86401"#, "/max_queue_seconds", "out_of_range", limit("", "86401")),
        (
            r#""max_queue_seconds": "1""#,
            "/max_queue_seconds",
            "type",
            "must be a number, not a string".to_owned(),
        ),
        (r#""timeout_seconds": -1"#, "/timeout_seconds", "out_of_range", limit("", "-1")),
        (r#""timeout_seconds": 1e400"#, "/timeout_seconds", "out_of_range", limit("", "1e400")),
        (
            r#""priority": 1e400"#,
            "/priority",
            "type",
            "must be one of high, normal, low, not a number".to_owned(),
        ),
        (r#""timeout_seconds": null"#, "/timeout_seconds", "type", "must be a number, not null".to_owned()),
        (
            r#""prio": "high""#,
            "/prio",
            "unknown_field",
            "is not a field of this request; known are data, inputs, outputs, model, version, priority, max_queue_seconds and \
             timeout_seconds"
                .to_owned(),
        ),
    ] {
        let detail = detail.trim_start();
        let answer = gateway.predict(&format!(r#"{{"data": [[5.1, 3.5, 1.4, 0.2]], {option}}}"#)).await;
        invalid(&[(place, code, detail)]).assert(&answer, "/predict", &format!("{place} {detail}"));
    }
    assert!(gateway.keys().is_empty());
}

#[tokio::test]
async fn all_mistakes_are_reported_at_once() {
    let gateway = Gateway::start().await;
    let answer = gateway
        .predict(r#"{"priority": "urgent", "timeout_seconds": 0, "data": [[5.1, 3.5, "x", 11]]}"#)
        .await;
    let expected = invalid(&[
        ("/priority", "unknown_value", "must be one of high, normal, low"),
        ("/timeout_seconds", "out_of_range", "must be greater than 0 and at most 86400, but is 0"),
        ("/data/0/2", "type", "petal_length must be a number, not a string"),
        ("/data/0/3", "out_of_range", "petal_width must be greater than 0 and less than 10, but is 11"),
    ]);
    expected.assert(&answer, "/predict", "/priority must be one of high, normal, low (and 3 more)");
}

#[tokio::test]
async fn a_body_that_is_not_declared_as_json() {
    let gateway = Gateway::start().await;
    let expected = problem(415, "unsupported_media_type", "Unsupported media type");
    let detail = "The body must be sent as Content-Type: application/json, not compressed";
    let cases: [&[(&str, &str)]; 5] = [
        &[],
        &[("content-type", "text/html")],
        &[("content-type", "application/x-www-form-urlencoded")],
        &[("content-type", "application/json; charset=latin1")],
        &[JSON, ("content-encoding", "gzip")],
    ];
    for headers in cases {
        let answer = gateway.send(Method::POST, "/predict", headers, FLOWER).await;
        expected.assert(&answer, "/predict", detail);
    }
    assert!(gateway.keys().is_empty());

    let charset = [("content-type", "Application/JSON; charset=\"UTF-8\"")];
    assert_eq!(gateway.send(Method::POST, "/predict", &charset, FLOWER).await.status, 202);
}

#[tokio::test]
async fn a_method_that_the_path_does_not_take() {
    let gateway = Gateway::start().await;
    let wrong = |allow| problem(405, "method_not_allowed", "Method not allowed").header("allow", allow);
    let detail = "The path does not support this method; Allow lists the supported ones";
    let job = format!("/job/{}", JobId::new(0));
    for (method, path, allow) in [
        (Method::GET, "/predict", "POST"),
        (Method::DELETE, "/predict", "POST"),
        (Method::GET, "/predict/test", "POST"),
        (Method::POST, &job, "GET,HEAD,DELETE"),
        (Method::GET, &format!("{job}/retry"), "POST"),
        (Method::POST, "/jobs", "GET,HEAD"),
        (Method::PUT, "/health", "GET,HEAD"),
        (Method::POST, "/metadata", "GET,HEAD"),
        (Method::POST, "/metrics", "GET,HEAD"),
    ] {
        wrong(allow).assert(&gateway.send(method, path, &[], "").await, path, detail);
    }
}

#[tokio::test]
async fn a_path_that_does_not_exist() {
    let gateway = Gateway::start().await;
    let expected = problem(404, "not_found", "Not found");
    for path in ["/", "/predictions", "/job", "/job/a/b", "/jobs/", "/predict/", "/.env"] {
        expected.assert(&gateway.get(path).await, path, "No such path");
    }
    expected.assert(&gateway.get("/x?secret=1").await, "/x", "No such path");
}

/// Calls every operation on one job.
async fn assert_no_job(gateway: &Gateway, id: &str) {
    let path = format!("/job/{id}");
    let expected: Problem = job_not_found();
    expected.assert(&gateway.get(&path).await, &path, "Job not found");
    expected.assert(&gateway.delete(&path).await, &path, "Job not found");
    let path = format!("{path}/retry");
    expected.assert(&gateway.post(&path).await, &path, "Job not found");
}

#[tokio::test]
async fn a_job_that_does_not_exist() {
    let gateway = Gateway::start().await;
    // In the partition that exists, and in one that does not.
    for id in [JobId::new(0), JobId::new(255)] {
        assert_no_job(&gateway, &id.to_string()).await;
    }
    assert!(gateway.keys().is_empty());
}

#[tokio::test]
async fn an_id_that_is_none() {
    let gateway = Gateway::start().await;
    let longest = "1".repeat(1024 - "/job//retry".len());
    for id in ["a1b2c3", "0", "%00", "%ff", "..%2f", "019f1d2e-7a31-7c05-9f53-2b8e66a1d4zz", &longest] {
        assert_no_job(&gateway, id).await;
    }
    // An error does not repeat a path of any length.
    let path = format!("/job/{}", "1".repeat(3000));
    job_not_found().assert(&gateway.get(&path).await, &format!("{}...", &path[..1024]), "Job not found");
}

#[tokio::test]
async fn a_job_is_cancelled_twice() {
    let gateway = Gateway::start().await;
    let id = gateway.submit().await;
    let body = json!({"job_id": id.to_string(), "status": "cancelled"});
    for _ in 0..2 {
        assert_json(&gateway.delete(&format!("/job/{id}")).await, 200, &[], &body);
    }
}

#[tokio::test]
async fn a_job_that_has_ended_cannot_be_cancelled() {
    let gateway = Gateway::start().await;
    let expected = problem(409, "job_already_finished", "Job already finished");
    for (id, status) in [(gateway.completed().await, "completed"), (gateway.failed().await, "failed")] {
        let (path, before) = (format!("/job/{id}"), gateway.hash(id));
        let answer = gateway.delete(&path).await;
        expected.assert(&answer, &path, &format!("The job is {status} and cannot be cancelled any more"));
        assert_eq!(gateway.hash(id), before);
    }
}

#[tokio::test]
async fn an_answer_to_head_has_the_headers_only() {
    let gateway = Gateway::start().await;
    let answer = gateway.send(Method::HEAD, "/nowhere", &[], "").await;
    assert_eq!((answer.status, answer.body.len()), (404, 0));
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
}

#[tokio::test]
async fn a_request_id_is_given_when_none_usable_came() {
    let gateway = Gateway::start().await;
    for headers in
        [&[][..], &[("x-request-id", "")], &[("x-request-id", "a b")], &[("x-request-id", "\u{e9}")]]
    {
        let answer = gateway.proxy.client().request(Method::GET, "/x", headers, "").await;
        let id = answer.header("x-request-id").unwrap().to_owned();
        assert_eq!(answer.json()["request_id"], Value::from(id.clone()));
        assert!(id.parse::<JobId>().is_ok(), "{id} is a UUID");
    }
}
