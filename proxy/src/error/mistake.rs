//! One wrong part of a request. Text of the client is cut, so that no answer grows with it.

use std::fmt::Display;

use schemars::{JsonSchema, Schema};
use serde::Serialize;
use serde_json::Value;
use tepal_shared::model::InputError;

use super::short::short;

/// Bytes of a pointer or a parameter's name, as JSON. A longer one is cut and ends with three dots.
pub(crate) const LONGEST_POINTER: usize = 200;
/// Bytes of a detail, as JSON.
const LONGEST_DETAIL: usize = 300;
/// A request with very many mistakes is answered with the first ones.
pub(crate) const MOST_MISTAKES: usize = tepal_shared::model::MOST_ERRORS;

/// One wrong part of a request.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline, transform = list_places)]
pub(crate) struct Mistake {
    #[serde(flatten)]
    pub(crate) place: Place,
    /// What is wrong, and what is valid.
    pub(crate) detail: String,
    /// One word for programs.
    pub(crate) code: &'static str,
}

/// The part of the request.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Place {
    /// A JSON Pointer (RFC 6901) into the body; a long one is cut and ends in three dots.
    Pointer(String),
    /// A query parameter.
    Parameter(String),
    /// A header.
    Header(&'static str),
}

/// Lists the places as optional members, which more programs understand than alternatives.
fn list_places(schema: &mut Schema) {
    let Some(Value::Array(places)) = schema.remove("oneOf") else { return };
    let Some(members) = schema.get_mut("properties").and_then(Value::as_object_mut) else { return };
    for place in &places {
        for (name, member) in place["properties"].as_object().into_iter().flatten() {
            let mut member = member.clone();
            member["description"] = place["description"].clone();
            members.insert(name.clone(), member);
        }
    }
}

impl Mistake {
    /// A mistake in the body.
    pub(crate) fn at(pointer: impl Display, code: &'static str, detail: impl Display) -> Self {
        Self::new(Place::Pointer(short(pointer, LONGEST_POINTER)), code, detail)
    }

    /// A mistake in the query.
    pub(crate) fn in_query(parameter: &str, code: &'static str, detail: impl Display) -> Self {
        Self::new(Place::Parameter(short(parameter, LONGEST_POINTER)), code, detail)
    }

    /// A mistake in a header.
    pub(crate) fn in_header(name: &'static str, code: &'static str, detail: impl Display) -> Self {
        Self::new(Place::Header(name), code, detail)
    }

    fn new(place: Place, code: &'static str, detail: impl Display) -> Self {
        Self { place, detail: short(detail, LONGEST_DETAIL), code }
    }
}

impl From<InputError> for Mistake {
    fn from(error: InputError) -> Self {
        Self::at(error.pointer, error.code, error.detail)
    }
}

/// These names in a sentence.
pub(crate) fn in_words(names: &[&str]) -> String {
    match names {
        [names @ .., last] if !names.is_empty() => format!("{} and {last}", names.join(", ")),
        names => names.concat(),
    }
}

/// The first mistake in full, and the number of the others.
pub(super) fn summary(mistakes: &[Mistake]) -> String {
    let Some(first) = mistakes.first() else { return "The request is invalid".to_owned() };
    let place = match &first.place {
        Place::Pointer(pointer) if pointer.is_empty() => "The body",
        Place::Pointer(pointer) => pointer.as_str(),
        Place::Parameter(name) => name.as_str(),
        Place::Header(name) => name,
    };
    match mistakes.len() - 1 {
        0 => format!("{place} {}", first.detail),
        more => format!("{place} {} (and {more} more)", first.detail),
    }
}
