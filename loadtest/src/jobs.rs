//! The accepted jobs: following each to its end, and reading a sample again.

pub(crate) mod follow;
mod ids;
pub(crate) mod sample;
pub(crate) mod settings;
pub(crate) mod table;
pub(crate) mod verify;
