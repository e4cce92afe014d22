//! The meaning of a failed call over HTTP: who is to blame, and what a client may read of it. For the statuses see RFC 9110, section 15.

use std::{
    error::Error,
    time::{Duration, SystemTime},
};

use hyper::{
    HeaderMap, StatusCode,
    header::{LOCATION, RETRY_AFTER},
};
use hyper_util::client::legacy;
use serde_json::Value;
use tepal_shared::process::tls::TlsServer;

use crate::backend::{BackendError, Cause, Verdict};

/// How much of a server's text a client may see. As for TensorFlow Serving.
const LONGEST_TEXT: usize = 200;
/// A server that asks for a longer pause is called again all the same: others may have taken its load.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
const AWAY: &str = "The endpoint is not available";

/// The request got no answer.
pub(super) fn of_connection(error: legacy::Error, has_identity: bool) -> BackendError {
    if error.is_connect() {
        return of_connect(error, has_identity);
    }
    if let Some(reason) = server(has_identity).explain(&error) {
        return unavailable(&format!("{AWAY}: {reason}"), error);
    }
    let cause = causes(&error).find_map(|cause| cause.downcast_ref::<hyper::Error>());
    match cause {
        // The connection was closed before the request left its queue.
        Some(cause) if cause.is_canceled() || cause.is_closed() => unavailable(AWAY, error),
        Some(cause) if cause.is_parse() => unavailable("The endpoint does not speak HTTP/1.1", error),
        _ => broken(error),
    }
}

/// No connection could be opened.
pub(super) fn of_connect(error: impl Into<Cause>, has_identity: bool) -> BackendError {
    let error = error.into();
    match server(has_identity).explain(error.as_ref()) {
        Some(reason) => unavailable(&format!("{AWAY}: {reason}"), error),
        None => unavailable(AWAY, error),
    }
}

/// The connection broke after the server may have seen the request.
pub(super) fn broken(error: impl Into<Cause>) -> BackendError {
    BackendError::new(Verdict::Broken, "model_unavailable", "The connection to the endpoint broke")
        .because(error)
}

fn unavailable(message: &str, error: impl Into<Cause>) -> BackendError {
    BackendError::new(Verdict::Unavailable, "model_unavailable", message).because(error)
}

fn server(has_identity: bool) -> TlsServer {
    TlsServer { name: "the endpoint", prefix: "", has_identity }
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// The server answered with this status, which is no success.
pub(super) fn of_status(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> BackendError {
    let (verdict, code, what) = classify(status);
    let text = said(body).unwrap_or_default();
    // What a server says of a request that it has not run is for the client. Other texts may be about its inner life.
    let is_for_client = matches!(verdict, Verdict::Rejected | Verdict::TooLarge) && !text.is_empty();
    let message = match is_for_client {
        true => format!("{what} ({}): {text}", status.as_u16()),
        false => format!("{what} ({})", status.as_u16()),
    };
    let location =
        headers.get(LOCATION).map(|place| format!("to {}", String::from_utf8_lossy(place.as_bytes())));
    let cause = location.unwrap_or(text);
    let retry_after =
        headers.get(RETRY_AFTER).and_then(|value| pause(value.to_str().ok()?, SystemTime::now()));
    let error = BackendError::new(verdict, code, message);
    let error = BackendError { retry_after: retry_after.filter(|_| verdict.is_load()), ..error };
    if cause.is_empty() { error } else { error.because(cause) }
}

fn classify(status: StatusCode) -> (Verdict, &'static str, &'static str) {
    use StatusCode as S;
    match status {
        S::REQUEST_TIMEOUT | S::TOO_EARLY | S::TOO_MANY_REQUESTS | S::SERVICE_UNAVAILABLE => {
            (Verdict::Busy, "model_overloaded", "The endpoint is overloaded")
        }
        // The path, the method or the credentials in model.toml are wrong, or the server has not loaded the model. But a server may also
        // answer so to one input.
        S::UNAUTHORIZED
        | S::FORBIDDEN
        | S::NOT_FOUND
        | S::METHOD_NOT_ALLOWED
        | S::PROXY_AUTHENTICATION_REQUIRED
        | S::GONE => (Verdict::Refused, "model_rejected", "The endpoint accepts no calls"),
        // A gateway before the server answers so while the server starts, and when the input has killed the server.
        S::BAD_GATEWAY => (Verdict::Refused, "model_error", "The gateway before the endpoint has no server"),
        S::PAYLOAD_TOO_LARGE => {
            (Verdict::TooLarge, "payload_too_large_for_model", "The input exceeds a limit of the endpoint")
        }
        S::GATEWAY_TIMEOUT => (Verdict::Failed, "inference_timeout", "Model inference timeout"),
        _ if status.is_client_error() => {
            (Verdict::Rejected, "model_rejected", "The endpoint rejected the input")
        }
        _ if status.is_server_error() => (Verdict::Failed, "model_error", "Model inference failed"),
        _ => (
            Verdict::Unavailable,
            "model_unavailable",
            "The endpoint redirects, which is not followed: `url` in model.toml is not its address",
        ),
    }
}

/// The pause that a `Retry-After` asks for, seconds or a date (RFC 9110, section 10.2.3); `None` if it is neither.
fn pause(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    let pause = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(pause.min(LONGEST_PAUSE))
}

/// What a body says to people, in one short line: the usual members of JSON, or plain text.
fn said(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    let text = match serde_json::from_str::<Value>(&text) {
        Ok(value) => of_json(&value),
        // A page is for browsers.
        Err(_) if text.trim_start().starts_with('<') => return None,
        Err(_) => text.into_owned(),
    };
    let words =
        text.split(|char: char| char.is_whitespace() || char.is_control()).filter(|word| !word.is_empty());
    let line = words.collect::<Vec<_>>().join(" ");
    let mut short: String = line.chars().take(LONGEST_TEXT).collect();
    if short.len() < line.len() {
        short.push_str("...");
    }
    (!short.is_empty()).then_some(short)
}

/// `{"error": {"message": "..."}}` as OpenAI, `{"detail": ...}` as FastAPI and RFC 9457, `{"error": "..."}`, `{"message": "..."}`.
fn of_json(value: &Value) -> String {
    let places = ["/error/message", "/detail", "/error", "/message", "/title"];
    let found = places.iter().find_map(|place| value.pointer(place)).unwrap_or(value);
    found.as_str().map_or_else(|| found.to_string(), str::to_owned)
}

/// For the fuzz target of answers.
#[cfg(any(fuzzing, test))]
pub(super) mod fuzzing {
    use std::time::{Duration, SystemTime};

    /// The text of a refusal.
    pub(crate) fn said(body: &[u8]) -> Option<String> {
        super::said(body)
    }

    /// The pause that a header asks for.
    pub(crate) fn pause(text: &str) -> Option<Duration> {
        super::pause(text, SystemTime::UNIX_EPOCH)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn of(status: u16, body: &str) -> BackendError {
        of_status(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), body.as_bytes())
    }

    #[test]
    fn every_status_has_its_verdict() {
        use Verdict::{Busy, Failed, Refused, Rejected, TooLarge, Unavailable};
        for (verdict, statuses) in [
            (Busy, &[408, 425, 429, 503][..]),
            (Refused, &[401, 403, 404, 405, 407, 410, 502]),
            (Rejected, &[400, 402, 406, 409, 411, 415, 417, 418, 422, 431, 451]),
            (TooLarge, &[413]),
            (Failed, &[500, 501, 504, 505, 507, 599]),
            (Unavailable, &[300, 301, 302, 303, 304, 307, 308]),
        ] {
            for status in statuses {
                assert_eq!(of(*status, "").verdict, verdict, "{status}");
            }
        }
    }

    #[test]
    fn a_rejection_says_what_the_server_said_and_other_failures_do_not() {
        for (body, expected) in [
            (r#"{"error": {"message": "no such model", "code": 1}}"#, "no such model"),
            (
                r#"{"detail": [{"loc": ["body"], "msg": "field required"}]}"#,
                r#"[{"loc":["body"],"msg":"field required"}]"#,
            ),
            (r#"{"error": "too hot"}"#, "too hot"),
            (r#"{"message": "a\nb"}"#, "a b"),
            ("  plain\r\n text ", "plain text"),
        ] {
            assert_eq!(of(422, body).message, format!("The endpoint rejected the input (422): {expected}"));
            assert_eq!(of(500, body).message, "Model inference failed (500)");
        }
        assert_eq!(of(400, "<html><p>no</html>").message, "The endpoint rejected the input (400)");
        let long = of(400, &"é".repeat(1000)).message;
        assert!(long.ends_with("é...") && long.chars().count() < LONGEST_TEXT + 50, "{long}");
    }

    #[test]
    fn the_place_of_a_redirect_is_for_the_log_alone() {
        let headers = HeaderMap::from_iter([(LOCATION, "http://10.0.0.7/inner".parse().unwrap())]);
        let error = of_status(StatusCode::TEMPORARY_REDIRECT, &headers, b"");
        assert!(error.message.contains("redirects") && !error.message.contains("10.0.0.7"), "{error}");
        assert_eq!(error.cause.unwrap().to_string(), "to http://10.0.0.7/inner");
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_bounded() {
        let now = httpdate::parse_http_date("Mon, 30 Nov 2026 12:00:00 GMT").unwrap();
        let seconds = |text| pause(text, now).map(|pause| pause.as_secs());
        for (text, expected) in [
            ("7", Some(7)),
            (" 0 ", Some(0)),
            ("86400", Some(60)),
            ("Mon, 30 Nov 2026 12:00:05 GMT", Some(5)),
            ("Mon, 30 Nov 2026 11:00:00 GMT", Some(0)),
            ("Tue, 30 Nov 2027 11:00:00 GMT", Some(60)),
            ("soon", None),
            ("-1", None),
            ("1.5", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }

    #[test]
    fn only_a_server_under_load_is_given_a_pause() {
        let headers = HeaderMap::from_iter([(RETRY_AFTER, "3".parse().unwrap())]);
        let pause = |status| of_status(status, &headers, b"").retry_after;
        assert_eq!(pause(StatusCode::SERVICE_UNAVAILABLE), Some(Duration::from_secs(3)));
        assert_eq!(pause(StatusCode::INTERNAL_SERVER_ERROR), None);
    }
}
