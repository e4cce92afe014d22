//! The `Prefer` header (RFC 7240): how long a client wants to wait for the end of its job.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};

pub(crate) const PREFER: HeaderName = HeaderName::from_static("prefer");
const APPLIED: HeaderName = HeaderName::from_static("preference-applied");
const RESPOND_ASYNC: &str = "respond-async";
/// A longer wait is reduced to this one; `Preference-Applied` says so.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The wait that the client prefers, if any. Everything else in the header, malformed parts included, is ignored, as section 2
/// requires.
pub(crate) fn wait(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all(PREFER).into_iter().filter_map(|value| value.to_str().ok());
    // If a preference is given more than once, the first one counts.
    let seconds = values.flat_map(preferences).find(|(name, _)| name.eq_ignore_ascii_case("wait"))?.1;
    // Digits only. A number with too many digits is a very long time.
    let is_number = !seconds.is_empty() && seconds.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| Duration::from_secs(seconds.parse().unwrap_or(u64::MAX)).min(LONGEST_WAIT))
}

/// Whether the client prefers an answer before the work is done (section 4.1).
pub(crate) fn is_async(headers: &HeaderMap) -> bool {
    let values = headers.get_all(PREFER).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(preferences).any(|(name, _)| name.eq_ignore_ascii_case(RESPOND_ASYNC))
}

/// Reports that the answer comes before the work is done.
pub(crate) fn mark_async(headers: &mut HeaderMap) {
    headers.insert(APPLIED, HeaderValue::from_static(RESPOND_ASYNC));
}

/// Reports that the wait was granted.
pub(crate) fn mark_applied(headers: &mut HeaderMap, wait: Duration) {
    // Digits are always a valid value.
    if let Ok(value) = HeaderValue::try_from(format!("wait={}", wait.as_secs())) {
        headers.insert(APPLIED, value);
    }
}

/// Name and value of each preference in one header line, without quotes. Parameters are skipped.
fn preferences(line: &str) -> impl Iterator<Item = (&str, &str)> {
    split_outside_quotes(line, b',').map(|preference| {
        let preference = split_outside_quotes(preference, b';').next().unwrap_or_default();
        let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
        (name.trim(), unquoted(value.trim()))
    })
}

fn unquoted(word: &str) -> &str {
    word.strip_prefix('"').and_then(|word| word.strip_suffix('"')).unwrap_or(word)
}

/// Splits at `separator`, but not within quoted strings (RFC 9110, section 5.6.4).
fn split_outside_quotes(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let current = rest?;
        let (mut is_quoted, mut is_escaped) = (false, false);
        let end = current.bytes().position(|byte| {
            match byte {
                _ if is_escaped => is_escaped = false,
                b'\\' if is_quoted => is_escaped = true,
                b'"' => is_quoted = !is_quoted,
                _ => return byte == separator && !is_quoted,
            }
            false
        });
        let (part, after) = match end {
            Some(end) => (&current[..end], Some(&current[end + 1..])),
            None => (current, None),
        };
        rest = after;
        Some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(lines: &[&str]) -> Option<u64> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(PREFER, line.parse().unwrap());
        }
        wait(&headers).map(|wait| wait.as_secs())
    }

    #[test]
    fn the_wait_is_found_wherever_it_stands() {
        let same = [
            &["wait=10"][..],
            &["Wait = 10"],
            &["wait=\"10\""],
            &["respond-async, wait=10"],
            &["respond-async", "wait=10"],
            &["wait=10; strict; why=\"a,b\", return=minimal"],
            &["note=\"wait=1, \\\"wait=2\", wait=10"],
            &["wait=10, wait=20", "wait=30"],
            &[",, wait=10 ,"],
        ];
        for lines in same {
            assert_eq!(seconds(lines), Some(10), "{lines:?}");
        }
    }

    #[test]
    fn a_long_wait_is_capped() {
        for line in ["wait=61", "wait=86400", "wait=99999999999999999999999999"] {
            assert_eq!(seconds(&[line]), Some(60), "{line}");
        }
        assert_eq!(seconds(&["wait=60"]), Some(60));
        assert_eq!(seconds(&["wait=0"]), Some(0));
    }

    #[test]
    fn what_is_no_wait_is_ignored() {
        for lines in [
            &[][..],
            &[""],
            &["respond-async"],
            &["wait"],
            &["wait="],
            &["wait=-1"],
            &["wait=+1"],
            &["wait=1.5"],
            &["wait=soon"],
            &["await=5"],
            &["note=\"wait=5"],
            &["foo; wait=5"],
            // The first one counts, although it is malformed.
            &["wait=soon, wait=5"],
        ] {
            assert_eq!(seconds(lines), None, "{lines:?}");
        }
    }
}
