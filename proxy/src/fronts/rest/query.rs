//! Reads queries: no parameter is unknown or repeated.

use axum::{extract::Query, http::Uri};

use crate::error::{MOST_MISTAKES, Mistake, in_words};

/// The code and the detail of a mistake.
pub(super) type Wrong = (&'static str, String);

/// Passes each parameter to `read`, which returns `None` for one that it does not know. `known`: the parameters, for errors.
pub(super) fn read(
    uri: &Uri,
    known: &[&str],
    mut read: impl FnMut(&str, &str) -> Option<Result<(), Wrong>>,
) -> Result<(), Vec<Mistake>> {
    let parameters =
        Query::<Vec<(String, String)>>::try_from_uri(uri).map_or_else(|_| Vec::new(), |query| query.0);
    let mut mistakes = Vec::new();
    for (index, (name, value)) in parameters.iter().enumerate() {
        if mistakes.len() == MOST_MISTAKES {
            break;
        }
        let outcome = if parameters[..index].iter().any(|(earlier, _)| earlier == name) {
            Err(("repeated", "must be given only once".to_owned()))
        } else {
            read(name, value).unwrap_or_else(|| {
                let verb = if known.len() == 1 { "is" } else { "are" };
                let detail = format!("is not a parameter of this request; known {verb} {}", in_words(known));
                Err(("unknown_parameter", detail))
            })
        };
        mistakes.extend(outcome.err().map(|(code, detail)| Mistake::in_query(name, code, detail)));
    }
    if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
}
