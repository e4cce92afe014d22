//! The description of a model: what it takes, what it answers, and how its answers read. All that is particular to
//! one model is in its `model.toml`; no code knows a model by name.

mod description;
mod input;
mod output;

pub use description::{InputSpec, Model, ModelError, OutputSpec};
pub use input::{InputError, MOST_ERRORS, Rows};
pub use output::{OutputError, Rendered};
