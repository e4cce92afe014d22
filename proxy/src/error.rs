//! Every error of the API. Answers are RFC 9457 problem details; only `kind` gives an error its status code,
//! and only `grpc` its code of gRPC.

mod api_error;
mod call_error;
mod detail;
mod form;
mod grpc;
mod kind;
mod mistake;
mod problem;
mod render;
pub(crate) mod short;

#[cfg(test)]
pub(crate) use self::mistake::Location;
pub(crate) use self::{
    api_error::ApiError,
    call_error::CallError,
    form::ErrorForm,
    mistake::{LONGEST_POINTER, MOST_MISTAKES, Mistake, in_words},
    problem::{BriefProblem, MOST_BYTES, Problem},
    render::ErrorMember,
};

#[cfg(test)]
mod tests;
