//! Assertions on whole answers: status, all headers and the body.

use serde_json::{Value, json};
use tepal_tests::http::Answer;

/// The request id that every request of [`crate::gateway::Gateway`] carries.
pub(crate) const REQUEST_ID: &str = "r-1";
/// The detail that the specification gives for a Redis that is down.
pub(crate) const UNAVAILABLE: &str = "Service temporarily unavailable";

/// An error answer as it should be.
pub(crate) struct Problem {
    status: u16,
    code: &'static str,
    title: &'static str,
    headers: Vec<(&'static str, &'static str)>,
    errors: Option<Value>,
}

/// A problem without list of mistakes.
pub(crate) fn problem(status: u16, code: &'static str, title: &'static str) -> Problem {
    Problem { status, code, title, headers: Vec::new(), errors: None }
}

/// 422 for these mistakes: place, code and detail of each. A place that begins with `/`, or is empty, points into the
/// body; `?name` is a query parameter, any other a header.
pub(crate) fn invalid(mistakes: &[(&str, &str, &str)]) -> Problem {
    let error = |(place, code, detail): &(&str, &str, &str)| {
        let (kind, place) = match place.chars().next() {
            None | Some('/') => ("pointer", *place),
            Some('?') => ("parameter", &place[1..]),
            Some(_) => ("header", *place),
        };
        json!({kind: place, "detail": detail, "code": code})
    };
    let errors = mistakes.iter().map(error).collect();
    Problem { errors: Some(errors), ..problem(422, "invalid_input", "Invalid input") }
}

/// 503 for a Redis that is down.
pub(crate) fn unavailable() -> Problem {
    problem(503, "service_unavailable", "Service unavailable").header("retry-after", "1")
}

/// 404 for a job.
pub(crate) fn job_not_found() -> Problem {
    problem(404, "job_not_found", "Job not found")
}

impl Problem {
    /// The same with one header more.
    pub(crate) fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Asserts that `answer`, to a request for `instance`, is this problem with this detail and nothing else.
    #[track_caller]
    pub(crate) fn assert(&self, answer: &Answer, instance: &str, detail: &str) {
        let mut body = json!({
            "type": format!("/problems/{}", self.code.replace('_', "-")),
            "title": self.title,
            "status": self.status,
            "detail": detail,
            "instance": instance,
            "code": self.code,
            "request_id": REQUEST_ID,
        });
        if let Some(errors) = &self.errors {
            body["errors"] = errors.clone();
        }
        assert_eq!(answer.status, self.status, "{}", answer.text());
        assert_headers(answer, "application/problem+json", &self.headers);
        assert_eq!(answer.json(), body);
    }
}

/// Asserts that `answer` has this status, these headers beside the usual ones, and this JSON body.
#[track_caller]
pub(crate) fn assert_json(answer: &Answer, status: u16, headers: &[(&str, &str)], body: &Value) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_headers(answer, "application/json", headers);
    assert_eq!(&answer.json(), body);
}

/// The same with the body to the byte.
#[track_caller]
pub(crate) fn assert_text(answer: &Answer, status: u16, content_type: &str, body: &str) {
    assert_eq!((answer.status, answer.text().as_str()), (status, body));
    assert_headers(answer, content_type, &[]);
}

/// Asserts that these are all headers beside the usual ones and `date`.
#[track_caller]
fn assert_headers(answer: &Answer, content_type: &str, more: &[(&str, &str)]) {
    let length = answer.body.len().to_string();
    let mut usual = vec![
        ("content-length", length.as_str()),
        ("content-type", content_type),
        ("x-request-id", REQUEST_ID),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
    ];
    let mut given: Vec<(&str, &str)> =
        answer.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    assert!(given.iter().any(|(name, _)| *name == "date"), "{given:?}");
    given.retain(|(name, _)| *name != "date");
    if answer.headers.contains_key("etag") {
        // What caches may do with a job has its own tests.
        given.retain(|(name, _)| !["cache-control", "etag", "vary"].contains(name));
    } else {
        usual.push(("cache-control", "no-store"));
    }
    let mut expected = [&usual, more].concat();
    given.sort_unstable();
    expected.sort_unstable();
    assert_eq!(given, expected, "{}", answer.text());
}
