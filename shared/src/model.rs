//! The description of a model: its inputs and outputs, and the form of its results. Everything particular to one model is in its
//! `model.toml`; no code knows a model by name.

mod description;
mod input;
mod metadata;
pub mod onnx_file;
mod output;
mod schema;

pub use description::{InputSpec, Model, ModelError, OutputSpec};
pub use input::Rows;
pub use output::{Answer, OutputError, Rendered};

pub use crate::tensor::{InputError, MOST_ERRORS};
