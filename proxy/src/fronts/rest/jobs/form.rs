//! The forms of cursors and times.

/// All that a client may know of a cursor: a nonce, a position and an authentication tag, 45 bytes in base64url.
pub(crate) const PATTERN: &str = "^[A-Za-z0-9_-]{60}$";
const LENGTH: usize = 60;
/// An example.
pub(super) const SOME_CURSOR: &str = "mLSTdYKjV0cRzvQ8yGn2aOeXhBpW5uJ7IfDkA1tE9s4CqM6x3oZl_r-NbHgU";

/// Whether the text may be a cursor; see [`PATTERN`].
pub(super) fn has_form(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    text.len() == LENGTH && text.bytes().all(is_allowed)
}

/// The pattern of a valid time since 1970, in UTC. The letters may be in lower case (RFC 3339, section 5.6).
pub(super) fn time_pattern() -> String {
    let year = "(19[7-9][0-9]|[2-9][0-9]{3})";
    let leap_year =
        "(19(7[26]|8[048]|9[26])|[2-9][0-9](0[48]|[2468][048]|[13579][26])|([2468][048]|[3579][26])00)";
    let long = "(0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])";
    let short = "(0[469]|11)-(0[1-9]|[12][0-9]|30)";
    let february = "02-(0[1-9]|1[0-9]|2[0-8])";
    let day = format!("({year}-({long}|{short}|{february})|{leap_year}-02-29)");
    format!("^{day}[Tt]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{{1,9}})?[Zz]$")
}

#[cfg(test)]
mod tests {
    use regex::Regex;

    use super::*;

    #[test]
    fn every_day_that_exists_fits_the_pattern_and_no_other() {
        let pattern = Regex::new(&time_pattern()).unwrap();
        for year in (1968..2030).chain(2096..2106).chain([2400, 3000, 9200, 9999]) {
            for (month, day) in (0..=13).flat_map(|month| (0..=32).map(move |day| (month, day))) {
                let time = format!("{year}-{month:02}-{day:02}T23:59:59.999Z");
                let exists = humantime::parse_rfc3339(&time).is_ok();
                assert_eq!(pattern.is_match(&time), exists, "{time}");
                assert_eq!(pattern.is_match(&time.to_ascii_lowercase()), exists, "{time}");
            }
        }
    }

    #[test]
    fn the_example_of_a_cursor_has_its_form() {
        assert!(Regex::new(PATTERN).unwrap().is_match(SOME_CURSOR));
    }
}
