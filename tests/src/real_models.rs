//! Real models through the whole product, beside onnxruntime called directly: `make test-models`.
//!
//! `tests/models/real/prepare.sh` makes the models, inputs for them, and the answers of onnxruntime.

mod case;
mod cost;
mod product;
mod report;

pub(crate) use self::case::Tensor;
pub use self::case::{Case, Model};
pub use self::cost::{Cost, measure};
pub use self::product::{Engine, Outcome, run};
pub use self::report::{costs, outcomes};
