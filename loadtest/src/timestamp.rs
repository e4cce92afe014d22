//! RFC 3339 times: read from job records, written into reports. Only the arithmetic; no time zones but an offset.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch of an RFC 3339 date and time (section 5.6); `None` if it is not one.
pub(crate) fn parse_ms(text: &str) -> Option<i64> {
    let (date, rest) = text.split_once(['T', 't', ' '])?;
    let mut parts = date.splitn(3, '-').map(digits);
    let days = days_from_civil(parts.next()??, parts.next()??, parts.next()??);
    let split = rest.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = rest.split_at(split);
    Some(days * 86_400_000 + clock_ms(clock)? - zone_ms(zone)?)
}

/// One to four digits: no field of a date is longer, and none can overflow.
fn digits(text: &str) -> Option<i64> {
    let plausible = text.len() <= 4 && text.bytes().all(|byte| byte.is_ascii_digit());
    plausible.then(|| text.parse().ok())?
}

fn clock_ms(text: &str) -> Option<i64> {
    let mut parts = text.splitn(3, ':');
    let (hours, minutes) = (digits(parts.next()?)?, digits(parts.next()?)?);
    let (seconds, fraction) = parts.next().map(|last| last.split_once('.').unwrap_or((last, "")))?;
    let millis = digits(format!("{fraction:0<3}").get(..3)?)?;
    Some(((hours * 60 + minutes) * 60 + digits(seconds)?) * 1_000 + millis)
}

fn zone_ms(text: &str) -> Option<i64> {
    if text.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let (hours, minutes) = text.get(1..)?.split_once(':')?;
    let ms = (digits(hours)? * 60 + digits(minutes)?) * 60_000;
    Some(if text.starts_with('-') { -ms } else { ms })
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year - era * 400;
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The inverse of [`days_from_civil`].
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days - era * 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

/// The present in UTC, to the second: `2026-01-31T12:00:00Z`.
pub(crate) fn now() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    show(i64::try_from(seconds).unwrap_or(0))
}

fn show(seconds: i64) -> String {
    let (year, month, day) = civil_from_days(seconds.div_euclid(86_400));
    let clock = seconds.rem_euclid(86_400);
    let (hours, minutes, seconds) = (clock / 3_600, clock / 60 % 60, clock % 60);
    format!("{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_to_the_millisecond() {
        assert_eq!(parse_ms("1970-01-01T00:00:00.000Z"), Some(0));
        assert_eq!(parse_ms("2000-02-29T23:59:59.5Z"), Some(951_868_799_500));
        assert_eq!(parse_ms("2024-03-01T00:00:00.123456Z"), Some(1_709_251_200_123));
        assert_eq!(parse_ms("2024-03-01T09:00:00+09:00"), Some(1_709_251_200_000));
        assert_eq!(parse_ms("2024-02-29T19:30:00-04:30"), Some(1_709_251_200_000));
    }

    #[test]
    fn what_is_not_a_time_is_refused() {
        for wrong in
            ["", "today", "2024-03-01", "2024-03-01T00:00:00", "2024-xx-01T00:00:00Z", "2024-03-01T00:00Z"]
        {
            assert_eq!(parse_ms(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn writing_and_reading_agree_over_four_centuries() {
        for day in (0..146_097).step_by(13) {
            let text = show(day * 86_400 + 45_296);
            assert_eq!(parse_ms(&text), Some((day * 86_400 + 45_296) * 1_000), "{text}");
        }
    }
}
