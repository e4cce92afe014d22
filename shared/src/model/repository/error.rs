//! Why a model cannot be used.

use std::{io, path::PathBuf};

use super::{super::onnx_file::OnnxError, DESCRIPTION, ONNX_FILE};
use crate::job::NotAModelName;

/// A version of a model cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("version {number} of the model is broken")]
pub struct BrokenVersion {
    /// Its number.
    pub number: String,
    /// The reason.
    #[source]
    pub error: Box<ModelError>,
}

/// A model cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The folder with all models cannot be read.
    #[error("cannot read the folder of the models, MODELS_DIR `{folder}`")]
    Repository {
        /// The folder.
        folder: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// The text cannot be the name of a model.
    #[error(transparent)]
    Name(#[from] NotAModelName),
    /// There is no such model.
    #[error("MODELS_DIR `{folder}` has no folder `{name}`, but {known}")]
    Unknown {
        /// The folder with all models.
        folder: PathBuf,
        /// The model.
        name: String,
        /// The models that it has.
        known: String,
    },
    /// Several models, none of which is the default.
    #[error("set MODEL_NAME: MODELS_DIR `{folder}` has {known}")]
    NoDefault {
        /// The folder with all models.
        folder: PathBuf,
        /// The models that it has.
        known: String,
    },
    /// The folder says nothing about its model.
    #[error(
        "the folder {folder} has no model: it needs a {ONNX_FILE}, a number folder with one for each version, or a {DESCRIPTION}"
    )]
    NoModel {
        /// The folder.
        folder: PathBuf,
    },
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// The description is not TOML of the expected form.
    #[error("the model description {path} is malformed")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The place and the reason.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// The file with the sample is not JSON.
    #[error("the sample {path} is no JSON")]
    Sample {
        /// The file.
        path: PathBuf,
        /// The place and the reason.
        #[source]
        source: serde_json::Error,
    },
    /// Two folders have the same model name.
    #[error("the folders `{one}` and `{other}` both claim the model name `{other}`: change `name` in {path}")]
    NameTwice {
        /// The folder whose description has another name than the folder.
        one: String,
        /// The folder of that name.
        other: String,
        /// The description.
        path: PathBuf,
    },
    /// The description contradicts itself or the model.
    #[error("the model description {path} is inconsistent: {reason}")]
    Inconsistent {
        /// The file.
        path: PathBuf,
        /// The contradiction.
        reason: String,
    },
    /// The model says something about itself that no description can change.
    #[error("the model {path} cannot be served: {reason}")]
    Unfit {
        /// Its file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// The same of a model that only a server describes.
    #[error("the model `{name}` of the model server cannot be served: {reason}")]
    Served {
        /// The model.
        name: String,
        /// The reason.
        reason: String,
    },
    /// The ONNX file cannot be used.
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    /// All versions are broken.
    #[error("no version in the folder {folder} can be used, neither {numbers}")]
    NoGoodVersion {
        /// The folder.
        folder: PathBuf,
        /// The versions.
        numbers: String,
        /// What is wrong with the newest.
        #[source]
        newest: Box<BrokenVersion>,
    },
}
