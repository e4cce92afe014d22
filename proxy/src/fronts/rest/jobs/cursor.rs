//! Cursors of `GET /jobs`. A page may end at another owner's entry, so a cursor is sealed: its holder cannot read the position in
//! it, and only the caller that received it can use it, with the same filters.

use ring::error::Unspecified;
use tepal_shared::{job::owner::View, queue::views::LogPlace};

use super::listing::Listing;
use crate::secret::Seal;

/// The cursor of the page of `listing` that begins after `place`.
pub(super) fn seal(
    key: &Seal,
    place: LogPlace,
    listing: &Listing,
    view: View<'_>,
) -> Result<String, Unspecified> {
    key.seal(&place.to_bytes(), context(listing, view).as_bytes())
}

/// Where a page begins; `None` if the cursor belongs to another listing or caller.
pub(super) fn open(key: &Seal, cursor: &str, listing: &Listing, view: View<'_>) -> Option<LogPlace> {
    let place = key.open(cursor, context(listing, view).as_bytes())?;
    Some(LogPlace::from_bytes(place.try_into().ok()?))
}

/// The caller and the filters. No part contains a space, so two listings never have the same text.
fn context(listing: &Listing, view: View<'_>) -> String {
    let Listing { status, priority, model, created_after, created_before, .. } = listing;
    let status = status.map_or("", |status| status.as_str());
    let priority = priority.map_or("", |priority| priority.as_str());
    let time = |time: &Option<u64>| time.map(|ms| ms.to_string()).unwrap_or_default();
    let (after, before) = (time(created_after), time(created_before));
    let model = model.as_deref().unwrap_or_default();
    [view.as_argument(), status, priority, model, &after, &before].join(" ")
}

#[cfg(test)]
mod tests {
    use super::{
        super::form::{PATTERN, has_form},
        *,
    };
    use crate::secret::Keys;

    #[test]
    fn a_cursor_fits_the_pattern_of_the_contract_wherever_it_points() {
        let key = Keys::derive(&[7; 32]).unwrap().cursors;
        let pattern = regex::Regex::new(PATTERN).unwrap();
        for (ms, seq, partition) in [(0, 0, 0), (1_795_629_600_000, 7, 3), (u64::MAX, u64::MAX, u8::MAX)] {
            let place = LogPlace { ms, seq, partition };
            let cursor = seal(&key, place, &Listing::default(), View::All).unwrap();
            assert!(pattern.is_match(&cursor) && has_form(&cursor), "{cursor}");
            assert_eq!(open(&key, &cursor, &Listing::default(), View::All), Some(place));
        }
    }

    #[test]
    fn each_caller_and_filter_has_a_context_of_its_own() {
        let listing = |query: &str| Listing::read(&format!("/jobs?{query}").parse().unwrap()).unwrap();
        let time = "1970-01-01T00:00:00.001Z";
        let queries = [
            "",
            "status=pending",
            "priority=low",
            "model=low",
            &format!("created_after={time}"),
            &format!("created_before={time}"),
        ];
        let views = [View::All, View::Unowned, View::Owner("1"), View::Owner("pending")];
        let all = queries.iter().flat_map(|query| views.map(|view| context(&listing(query), view)));
        assert_eq!(all.collect::<std::collections::HashSet<_>>().len(), queries.len() * views.len());
        assert_eq!(context(&listing("limit=7"), View::All), context(&listing(""), View::All));
    }
}
