//! Every error of the API. Answers are RFC 9457 problem details; only `kind` gives an error its status code.

mod api_error;
mod detail;
mod kind;
mod mistake;
mod problem;
mod render;
pub(crate) mod short;

#[cfg(test)]
pub(crate) use self::mistake::Location;
pub(crate) use self::{
    api_error::ApiError,
    mistake::{LONGEST_POINTER, MOST_MISTAKES, Mistake, in_words},
    problem::{BriefProblem, MOST_BYTES, Problem},
};

#[cfg(test)]
mod tests;
