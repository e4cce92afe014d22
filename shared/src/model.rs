//! The description of a model: its inputs and outputs, and the form of its results. Everything particular to one model is in its
//! folder; no code knows a model by name.

mod description;
pub mod endpoint;
mod input;
mod job_input;
mod metadata;
pub mod onnx_file;
mod opaque;
mod output;
mod published;
pub mod repository;
mod sample;
mod schema;
mod serving;
mod shape;
mod stored;
mod tensors;

pub use description::{InputSpec, Model, OutputSpec, ServerVersion};
pub use input::Placed;
pub use job_input::{InputTensor, JobInput};
pub use output::{Answer, OutputError, Rendered, StoredOutputs};
pub use published::PublishedError;
pub use serving::{HTTP, Serving};
pub use shape::{Axis, Shape, elements_of};
pub use stored::StoredMismatch;

pub use crate::tensor::{InputError, MOST_ERRORS};
