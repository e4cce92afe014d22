//! Lengths of time as people type and read them: `500ms`, `30s`, `5m`, `1h`.

use std::time::Duration;

/// Reads a number with a unit (`ms`, `s`, `m`, `h`).
///
/// # Errors
/// A sentence that says what a length of time looks like.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let trimmed = text.trim();
    let split = trimmed.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(split);
    let seconds = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        _ => return Err(hint(text)),
    };
    let number: f64 = number.parse().map_err(|_| hint(text))?;
    Duration::try_from_secs_f64(number * seconds).map_err(|_| hint(text))
}

fn hint(text: &str) -> String {
    format!(
        "`{text}` is not a length of time; write a number and a unit (ms, s, m, h), such as 500ms, 30s or 1h"
    )
}

/// The shortest usual spelling: `500ms`, `30s`, `5m`, `2h 30m`.
pub(crate) fn show(duration: Duration) -> String {
    let (seconds, millis) = (duration.as_secs(), duration.as_millis());
    match seconds {
        0 => format!("{millis}ms"),
        1..=119 if !millis.is_multiple_of(1000) => format!("{:.1}s", duration.as_secs_f64()),
        1..=119 => format!("{seconds}s"),
        120..=3_599 => joined(seconds / 60, "m", seconds % 60, "s"),
        _ => joined(seconds / 3_600, "h", seconds % 3_600 / 60, "m"),
    }
}

fn joined(large: u64, large_unit: &str, small: u64, small_unit: &str) -> String {
    if small == 0 {
        format!("{large}{large_unit}")
    } else {
        format!("{large}{large_unit} {small}{small_unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_read() {
        assert_eq!(parse("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse("1.5s"), Ok(Duration::from_millis(1_500)));
        assert_eq!(parse(" 2m "), Ok(Duration::from_secs(120)));
        assert_eq!(parse("1h"), Ok(Duration::from_secs(3_600)));
    }

    #[test]
    fn mistakes_are_explained() {
        for wrong in ["", "10", "s", "-1s", "1d", "1e400s", "10 0s"] {
            assert!(parse(wrong).unwrap_err().contains("500ms, 30s or 1h"), "{wrong}");
        }
    }

    #[test]
    fn lengths_are_shown_in_their_usual_unit() {
        let shown = [50, 1_000, 1_500, 90_000, 300_000, 9_000_000].map(|ms| show(Duration::from_millis(ms)));
        assert_eq!(shown, ["50ms", "1s", "1.5s", "90s", "5m", "2h 30m"]);
    }
}
