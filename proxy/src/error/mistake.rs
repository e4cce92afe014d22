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
#[schemars(inline, transform = list_locations)]
pub(crate) struct Mistake {
    #[serde(flatten)]
    pub(crate) location: Location,
    /// What is wrong, and what is valid.
    pub(crate) detail: String,
    /// One word for programs.
    pub(crate) code: &'static str,
}

/// The part of the request.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Location {
    /// A JSON Pointer (RFC 6901) into the body; a long one is cut and ends in three dots.
    Pointer(String),
    /// A query parameter.
    Parameter(String),
    /// A header.
    Header(&'static str),
}

/// Lists the locations as optional members, which more programs understand than alternatives.
fn list_locations(schema: &mut Schema) {
    let Some(Value::Array(locations)) = schema.remove("oneOf") else { return };
    let Some(members) = schema.get_mut("properties").and_then(Value::as_object_mut) else { return };
    for location in &locations {
        for (name, member) in location["properties"].as_object().into_iter().flatten() {
            let mut member = member.clone();
            member["description"] = location["description"].clone();
            members.insert(name.clone(), member);
        }
    }
}

impl Mistake {
    /// A mistake in the body.
    pub(crate) fn at(pointer: impl Display, code: &'static str, detail: impl Display) -> Self {
        Self::new(Location::Pointer(short(pointer, LONGEST_POINTER)), code, detail)
    }

    /// A mistake in the query.
    pub(crate) fn in_query(parameter: &str, code: &'static str, detail: impl Display) -> Self {
        Self::new(Location::Parameter(short(parameter, LONGEST_POINTER)), code, detail)
    }

    /// A mistake in a header.
    pub(crate) fn in_header(name: &'static str, code: &'static str, detail: impl Display) -> Self {
        Self::new(Location::Header(name), code, detail)
    }

    fn new(location: Location, code: &'static str, detail: impl Display) -> Self {
        Self { location, detail: short(detail, LONGEST_DETAIL), code }
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
    let location = match &first.location {
        Location::Pointer(pointer) if pointer.is_empty() => "The body",
        Location::Pointer(pointer) => pointer.as_str(),
        Location::Parameter(name) => name.as_str(),
        Location::Header(name) => name,
    };
    match mistakes.len() - 1 {
        0 => format!("{location} {}", first.detail),
        more => format!("{location} {} (and {more} more)", first.detail),
    }
}
