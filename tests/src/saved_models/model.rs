//! What `tests/models/saved/make_models.py` writes of the models.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::real_models::Case;

/// Models by their names.
pub type SavedModels = BTreeMap<String, SavedModel>;

/// The signature of a model, inputs for it, and TensorFlow's answers.
#[derive(Clone, Debug, Deserialize)]
pub struct SavedModel {
    /// The inputs.
    pub inputs: Vec<Port>,
    /// The outputs, by name.
    pub outputs: Vec<Port>,
    /// Inputs of several sizes.
    pub cases: Vec<Case>,
}

/// An input or output of a signature.
#[derive(Clone, Debug, Deserialize)]
pub struct Port {
    /// The name that requests and answers use.
    pub name: String,
    /// As the Open Inference Protocol names it.
    pub datatype: String,
    /// The whole shape, -1 for a variable axis.
    pub shape: Vec<i64>,
}

impl SavedModel {
    /// The models whose answers are part of the sources.
    #[must_use]
    pub fn recorded() -> SavedModels {
        Self::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models/saved/recorded.json"))
    }

    /// The models of a `cases.json`.
    ///
    /// # Panics
    /// When the file is not one that `make_models.py` wrote.
    #[must_use]
    pub fn read(path: &Path) -> SavedModels {
        let text = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}
