//! Wrong elements of a request.

use std::fmt;

use super::pointer::Pointer;

/// Largest number of wrong elements that are reported.
pub const MOST_ERRORS: usize = 20;

/// One wrong element of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputError {
    /// Its place, a JSON Pointer (RFC 6901).
    pub pointer: String,
    /// What is wrong and what is allowed, a sentence without its subject.
    pub detail: String,
    /// One word for programs.
    pub code: &'static str,
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.pointer, self.detail)
    }
}

/// The wrong elements found so far, at most [`MOST_ERRORS`].
#[derive(Debug, Default)]
pub struct InputErrors(Vec<InputError>);

impl InputErrors {
    /// Adds one, if there is room.
    pub fn add(&mut self, at: Pointer<'_>, code: &'static str, detail: impl Into<String>) {
        if !self.is_full() {
            self.0.push(InputError { pointer: at.to_string(), detail: detail.into(), code });
        }
    }

    /// Adds errors that were found elsewhere, as many as there is room for.
    pub fn extend(&mut self, errors: impl IntoIterator<Item = InputError>) {
        let room = MOST_ERRORS.saturating_sub(self.0.len());
        self.0.extend(errors.into_iter().take(room));
    }

    /// Whether nothing is wrong so far.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether no more are reported.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.0.len() >= MOST_ERRORS
    }

    /// The value, if nothing is wrong.
    ///
    /// # Errors
    /// The wrong elements.
    pub fn or<T>(self, value: T) -> Result<T, Vec<InputError>> {
        if self.0.is_empty() { Ok(value) } else { Err(self.0) }
    }
}
