//! What a user writes in `model.toml`. Everything is optional here: the model itself says the rest.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;

use super::super::{ServerVersion, Serving, Shape, endpoint::Endpoint, serving::HTTP};
use crate::tensor::DataType;

/// A `model.toml`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    /// Whether there is one.
    #[serde(skip)]
    pub(super) is_given: bool,
    pub(super) name: Option<String>,
    pub(super) version: Option<String>,
    /// A label that the configuration of TensorFlow Serving gives to a version.
    pub(super) version_label: Option<String>,
    pub(super) signature: Option<String>,
    pub(super) onnx_file: Option<PathBuf>,
    pub(super) max_batch: Option<usize>,
    #[serde(default)]
    pub(super) max_queue_depth: u64,
    #[serde(default, rename = "max_rows", deserialize_with = "refuse_max_rows")]
    _max_rows: Renamed,
    pub(super) sample: Option<Value>,
    /// A file of JSON in the same folder, instead of `sample`.
    pub(super) sample_file: Option<PathBuf>,
    #[serde(default)]
    pub(super) inputs: Vec<WrittenInput>,
    #[serde(default, rename = "output", deserialize_with = "refuse_output")]
    _output: Renamed,
    #[serde(default)]
    pub(super) outputs: Vec<WrittenOutput>,
    #[serde(default)]
    pub(super) serving: Serving,
    /// Where an opaque model is called.
    pub(super) http: Option<Endpoint>,
}

/// `[[inputs]]` of a `model.toml`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenInput {
    pub(super) name: String,
    pub(super) datatype: Option<DataType>,
    #[serde(default, rename = "dtype", deserialize_with = "refuse_dtype")]
    _dtype: Renamed,
    pub(super) shape: Option<Shape>,
    #[serde(default)]
    pub(super) features: Vec<String>,
    pub(super) greater_than: Option<f64>,
    pub(super) less_than: Option<f64>,
}

/// `[[outputs]]` of a `model.toml`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenOutput {
    pub(super) name: String,
    pub(super) datatype: Option<DataType>,
    #[serde(default, rename = "dtype", deserialize_with = "refuse_dtype")]
    _dtype: Renamed,
    pub(super) shape: Option<Shape>,
    #[serde(default)]
    pub(super) labels: Vec<String>,
    pub(super) finite: Option<bool>,
}

impl Written {
    /// Reads a `model.toml`.
    pub(super) fn parse(text: &str) -> Result<Self, toml::de::Error> {
        let written: Self = toml::from_str(text)?;
        if written.sample.is_some() && written.sample_file.is_some() {
            return Err(toml::de::Error::custom("it has both `sample` and `sample_file`"));
        }
        if written.version.is_some() && written.version_label.is_some() {
            return Err(toml::de::Error::custom("it has both `version` and `version_label`"));
        }
        Ok(Self { is_given: true, ..written })
    }

    /// The same with files that are relative to the model's folder.
    pub(super) fn within(self, folder: &Path) -> Self {
        Self { http: self.http.map(|endpoint| endpoint.within(folder)), ..self }
    }

    /// Whether it describes the model without the model's help.
    pub(super) fn is_complete(&self) -> bool {
        if self.http.is_some() {
            return true;
        }
        let inputs = self.inputs.iter().map(|input| input.datatype.is_some() && input.shape.is_some());
        let outputs = self.outputs.iter().map(|output| output.datatype.is_some() && output.shape.is_some());
        let has_tensors = !self.inputs.is_empty() && !self.outputs.is_empty();
        self.max_batch.is_some() && has_tensors && inputs.chain(outputs).all(|is_whole| is_whole)
    }

    /// How workers serve it. The backend is `http` if and only if there is an endpoint to call.
    pub(super) fn serving(&self) -> Result<Serving, String> {
        let mut serving = self.serving.clone();
        match (&self.http, serving.backend.as_deref()) {
            (None, Some(HTTP)) => Err("its backend is http, but it has no table [http]".to_owned()),
            (Some(_), Some(other)) if other != HTTP => {
                Err(format!("it has the table [http], but its backend is {other}"))
            }
            (Some(_), _) => {
                if let Some(key) = self.key_of_tensors() {
                    return Err(format!(
                        "it has both the table [http] and `{key}`: such a model takes any value and has no tensors"
                    ));
                }
                serving.backend = Some(HTTP.to_owned());
                Ok(serving)
            }
            (None, _) => Ok(serving),
        }
    }

    /// A key that has no meaning for an opaque model.
    fn key_of_tensors(&self) -> Option<&'static str> {
        let keys = [
            ("inputs", !self.inputs.is_empty()),
            ("outputs", !self.outputs.is_empty()),
            ("onnx_file", self.onnx_file.is_some()),
            ("signature", self.signature.is_some()),
            ("version_label", self.version_label.is_some()),
        ];
        keys.into_iter().find(|(_, is_written)| *is_written).map(|(key, _)| key)
    }

    /// The signature to call.
    pub(super) fn signature(&self) -> String {
        self.signature.clone().unwrap_or_else(|| "serving_default".to_owned())
    }

    /// The version that a model server runs. A version that is no number names an ONNX file only.
    pub(super) fn server_version(&self) -> ServerVersion {
        match (&self.version_label, &self.version) {
            (Some(label), _) => ServerVersion::Label(label.clone()),
            (None, Some(version)) => version.parse().map_or(ServerVersion::Newest, ServerVersion::Number),
            (None, None) => ServerVersion::Newest,
        }
    }
}

impl WrittenInput {
    /// An input about which nothing is written.
    pub(super) fn named(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }
}

impl WrittenOutput {
    /// An output about which nothing is written.
    pub(super) fn named(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }
}

/// A key of an earlier format. A file that has it is refused.
#[derive(Clone, Copy, Debug, Default)]
struct Renamed;

/// `dtype` was the name of `datatype`.
fn refuse_dtype<'de, D: Deserializer<'de>>(_: D) -> Result<Renamed, D::Error> {
    Err(D::Error::custom(r#"`dtype` is now `datatype`, with names as in `datatype = "FP32"`"#))
}

/// `[output]` was the only output.
fn refuse_output<'de, D: Deserializer<'de>>(_: D) -> Result<Renamed, D::Error> {
    Err(D::Error::custom("`[output]` is now `[[outputs]]`, a table for each output"))
}

/// `max_rows` was the name of `max_batch`.
fn refuse_max_rows<'de, D: Deserializer<'de>>(_: D) -> Result<Renamed, D::Error> {
    Err(D::Error::custom("`max_rows` is now `max_batch`"))
}
