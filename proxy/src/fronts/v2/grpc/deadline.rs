//! `grpc-timeout`: how long the client waits for its answer.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName};

use crate::{
    error::{ApiError, Mistake},
    http::headers,
};

const HEADER: HeaderName = HeaderName::from_static("grpc-timeout");
const NAME: &str = "grpc-timeout";

/// The time that a client allows; `None` = any.
pub(super) fn of(headers: &HeaderMap) -> Result<Option<Duration>, ApiError> {
    let Some(value) = headers::once(headers, &HEADER, NAME)? else { return Ok(None) };
    let wrong = || {
        let detail = "must be 1 to 8 digits and one of H, M, S, m, u, n";
        ApiError::Invalid(vec![Mistake::in_header(NAME, "format", detail)])
    };
    value.to_str().ok().and_then(read).map(Some).ok_or_else(wrong)
}

/// Digits and a unit (gRPC over HTTP2, "Requests").
fn read(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let is_number = (1..=8).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number: u32 = digits.parse().ok().filter(|_| is_number)?;
    let unit = match unit {
        "H" => Duration::from_secs(3600),
        "M" => Duration::from_secs(60),
        "S" => Duration::from_secs(1),
        "m" => Duration::from_millis(1),
        "u" => Duration::from_micros(1),
        "n" => Duration::from_nanos(1),
        _ => return None,
    };
    Some(unit * number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_unit_is_read() {
        let millis = |text| read(text).map(|span| span.as_millis());
        assert_eq!(["1H", "2M", "3S", "40m"].map(millis), [3_600_000, 120_000, 3000, 40].map(Some));
        assert_eq!(read("5u"), Some(Duration::from_micros(5)));
        assert_eq!(read("99999999n"), Some(Duration::from_nanos(99_999_999)));
        for bad in ["", "S", "1", "1s", "-1S", "+1S", " 1S", "123456789S", "1SS", "1.5S", "1\u{e9}"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
