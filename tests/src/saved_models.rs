//! SavedModels through the whole product: encoded images in, variable lengths, several outputs, elements that are not floats.
//!
//! `make test` runs them on [`Recorded`], which answers with what TensorFlow answered. `make test-models` runs them on TensorFlow.

mod check;
mod elements;
mod model;
mod product;
mod recorded;
mod tensorflow;
mod ways;

pub use self::check::{Checked, check, table};
pub use self::model::{Port, SavedModel, SavedModels};
pub use self::product::Product;
pub use self::recorded::Recorded;
pub use self::tensorflow::TensorFlow;
pub use self::ways::Way;
