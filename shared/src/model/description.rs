//! Reads and checks `model.toml`.

use std::{
    collections::{HashSet, VecDeque},
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;

use super::{
    JobInput,
    shape::{Axis, Shape},
};
use crate::tensor::{DataType, bounds::Bounds, from_json::Allowed};

/// `TensorShape::MaxDimensions()` of TensorFlow, without the batch axis.
const MOST_AXES: usize = 253;
/// No request can contain more in a row.
pub(super) const MOST_ELEMENTS: usize = 1 << 24;

/// A model, as its description says.
#[derive(Clone, Debug)]
pub struct Model {
    /// Its name in the model server.
    pub name: String,
    /// Its version in the model server.
    pub version: String,
    /// The signature to call.
    pub signature: String,
    /// The ONNX file for the in-process backend, if there is one.
    pub onnx_file: Option<PathBuf>,
    /// Largest number of rows of a job and of a call. 0 = the model has no batch axis: shapes are whole, and each job has a call
    /// of its own.
    pub max_batch: usize,
    /// A valid value of `data`, if the description has one of a size to show. [`Model::sample_input`] derives one otherwise.
    pub sample: Option<Value>,
    /// The sample of the description, if it is too large to show. As JSON it would take ten times the memory.
    pub(super) large_sample: Option<Arc<JobInput>>,
    /// The inputs, in order. With several inputs, a row is an object with a value for each.
    pub inputs: Vec<InputSpec>,
    /// The first output. It makes the prediction.
    pub output: OutputSpec,
    /// The other outputs, in order.
    pub further_outputs: Vec<OutputSpec>,
}

/// One input of a model.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputSpec {
    /// The backend's name of the input.
    pub name: String,
    /// Element type.
    pub datatype: DataType,
    #[serde(default, rename = "dtype", deserialize_with = "refuse_dtype")]
    _dtype: Renamed,
    /// Shape without the batch axis, if the model has one.
    pub shape: Shape,
    /// Names of the elements of a row, for error messages.
    #[serde(default)]
    pub features: Vec<String>,
    /// Every value must be greater than this.
    pub greater_than: Option<f64>,
    /// Every value must be less than this.
    pub less_than: Option<f64>,
}

/// One output of a model.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputSpec {
    /// The backend's name of the output.
    pub name: String,
    /// Element type.
    pub datatype: DataType,
    #[serde(default, rename = "dtype", deserialize_with = "refuse_dtype")]
    _dtype: Renamed,
    /// Shape without the batch axis, if the model has one.
    pub shape: Shape,
    /// Names of the classes, if a row contains one probability for each.
    #[serde(default)]
    pub labels: Vec<String>,
    /// Whether NaN and infinity are failures and not values. By default they are if there are labels.
    pub finite: Option<bool>,
}

/// A key of an earlier format. A file that has it is refused.
#[derive(Clone, Copy, Debug, Default)]
struct Renamed;

/// `dtype` was the name of `datatype`.
fn refuse_dtype<'de, D: Deserializer<'de>>(_: D) -> Result<Renamed, D::Error> {
    Err(D::Error::custom(r#"`dtype` is now `datatype`, with names as in `datatype = "FP32"`"#))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    version: String,
    #[serde(default = "default_signature")]
    signature: String,
    onnx_file: Option<PathBuf>,
    max_batch: usize,
    #[serde(default, rename = "max_rows", deserialize_with = "refuse_max_rows")]
    _max_rows: Renamed,
    sample: Option<Value>,
    inputs: Vec<InputSpec>,
    #[serde(default, rename = "output", deserialize_with = "refuse_output")]
    _output: Renamed,
    outputs: VecDeque<OutputSpec>,
}

/// `[output]` was the only output.
fn refuse_output<'de, D: Deserializer<'de>>(_: D) -> Result<Renamed, D::Error> {
    Err(D::Error::custom("`[output]` is now `[[outputs]]`, a table for each output"))
}

/// `max_rows` was the name of `max_batch`.
fn refuse_max_rows<'de, D: Deserializer<'de>>(_: D) -> Result<Renamed, D::Error> {
    Err(D::Error::custom("`max_rows` is now `max_batch`"))
}

fn default_signature() -> String {
    "serving_default".to_owned()
}

/// A model description cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The file cannot be read.
    #[error(
        "cannot read the model description {path}: MODELS_DIR must hold a folder MODEL_NAME with a model.toml"
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// The file is not TOML of the expected form.
    #[error("the model description {path} is malformed")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The place and the reason.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// The file contradicts itself.
    #[error("the model description {path} is inconsistent: {reason}")]
    Inconsistent {
        /// The file.
        path: PathBuf,
        /// The contradiction.
        reason: String,
    },
}

impl Model {
    /// Reads `<models_dir>/<name>/model.toml`.
    ///
    /// # Errors
    /// When the file is missing, malformed or contradicts itself.
    pub fn load(models_dir: &Path, name: &str) -> Result<Self, ModelError> {
        let folder = models_dir.join(name);
        let path = folder.join("model.toml");
        let text = std::fs::read_to_string(&path)
            .map_err(|source| ModelError::Unreadable { path: path.clone(), source })?;
        let mut model = Self::parse(&text, &folder)
            .map_err(|source| ModelError::Malformed { path: path.clone(), source: Box::new(source) })?;
        model.check().map_err(|reason| ModelError::Inconsistent { path: path.clone(), reason })?;
        if model.name != name {
            let reason = format!("its name is `{}`, but its folder's is `{name}`", model.name);
            return Err(ModelError::Inconsistent { path, reason });
        }
        model.convert_large_sample();
        Ok(model)
    }

    /// Reads and checks a description; `None` if it is invalid.
    #[cfg(any(fuzzing, test))]
    pub(crate) fn checked(text: &str, folder: &Path) -> Option<Self> {
        Self::parse(text, folder).ok().filter(|model| model.check().is_ok())
    }

    fn parse(text: &str, folder: &Path) -> Result<Self, toml::de::Error> {
        let mut file: File = toml::from_str(text)?;
        let output =
            file.outputs.pop_front().ok_or_else(|| toml::de::Error::custom("it has no [[outputs]]"))?;
        Ok(Self {
            name: file.name,
            version: file.version,
            signature: file.signature,
            onnx_file: file.onnx_file.map(|name| folder.join(name)),
            max_batch: file.max_batch,
            sample: file.sample,
            large_sample: None,
            inputs: file.inputs,
            output,
            further_outputs: file.outputs.into(),
        })
    }

    fn check(&self) -> Result<(), String> {
        if self.inputs.is_empty() {
            return Err("it has no [[inputs]]".to_owned());
        }
        self.inputs.iter().try_for_each(InputSpec::check)?;
        self.outputs().try_for_each(OutputSpec::check)?;
        if let Some(output) = self.further_outputs.iter().find(|output| !output.labels.is_empty()) {
            return Err(format!("output `{}` has labels, which only the first output may have", output.name));
        }
        check_names("inputs", self.inputs.iter().map(|input| &input.name))?;
        check_names("outputs", self.outputs().map(|output| &output.name))?;
        self.check_sample()
    }

    /// Whether the first axis of all tensors counts the rows of a call.
    #[must_use]
    pub fn has_batch_axis(&self) -> bool {
        self.max_batch > 0
    }

    /// The batch axis in front of shapes of the description, if the model has one.
    pub(super) fn batch_axis(&self) -> Option<Axis> {
        self.has_batch_axis().then_some(Axis::Variable)
    }

    /// Most rows of a call if a worker allows this many.
    #[must_use]
    pub fn most_rows_of_call(&self, allowed: usize) -> usize {
        allowed.min(self.max_batch).max(1)
    }

    /// All outputs, in order.
    pub fn outputs(&self) -> impl Iterator<Item = &OutputSpec> {
        std::iter::once(&self.output).chain(&self.further_outputs)
    }
}

impl InputSpec {
    /// What an element may be.
    pub(super) fn allowed(&self) -> Allowed {
        let Self { datatype, greater_than, less_than, .. } = *self;
        Allowed { datatype, bounds: Bounds { greater_than, less_than } }
    }

    fn check(&self) -> Result<(), String> {
        check_shape(&format!("input `{}`", self.name), &self.shape)?;
        let named = self.features.len();
        match self.shape.elements() {
            None if named > 0 => {
                return Err(format!("input `{}` has feature names, but a variable axis", self.name));
            }
            Some(elements) if named > 0 && named != elements => {
                return Err(format!(
                    "input `{}` has {elements} elements, but {named} feature names",
                    self.name
                ));
            }
            _ => {}
        }
        let is_number = !matches!(self.datatype, DataType::Bool | DataType::Bytes);
        if !is_number && (self.greater_than.is_some() || self.less_than.is_some()) {
            return Err(format!(
                "input `{}` is {} and can have no bounds",
                self.name,
                self.datatype.as_str()
            ));
        }
        Ok(())
    }
}

impl OutputSpec {
    /// Whether NaN and infinity are failures.
    #[must_use]
    pub fn must_be_finite(&self) -> bool {
        self.finite.unwrap_or(!self.labels.is_empty())
    }

    /// One number for each label. Axes of length 1 before it change nothing.
    fn has_shape_of_classes(&self) -> bool {
        let fixed = Axis::Fixed(self.labels.len());
        self.shape.axes().split_last().is_some_and(|(classes, before)| {
            *classes == fixed && before.iter().all(|axis| *axis == Axis::Fixed(1))
        })
    }

    fn check(&self) -> Result<(), String> {
        check_shape(&format!("output `{}`", self.name), &self.shape)?;
        let labels = self.labels.len();
        if labels > 0 && !self.has_shape_of_classes() {
            return Err(format!("{labels} labels, but the output's shape is {}", self.shape));
        }
        if labels > 0 && self.datatype == DataType::Bytes {
            return Err(
                "labels, but the output is BYTES: a class is the largest of several numbers".to_owned()
            );
        }
        Ok(())
    }
}

fn check_names<'a>(of: &str, names: impl Iterator<Item = &'a String>) -> Result<(), String> {
    let mut known = HashSet::new();
    let repeated = names.into_iter().find(|name| !known.insert(*name));
    repeated.map_or(Ok(()), |name| Err(format!("two {of} have the name `{name}`")))
}

fn check_shape(of: &str, shape: &Shape) -> Result<(), String> {
    let axes = shape.axes();
    if axes.contains(&Axis::Fixed(0)) {
        return Err(format!("{of} has an axis of length 0"));
    }
    if axes.len() > MOST_AXES {
        return Err(format!("{of} has {} axes; {MOST_AXES} are the most", axes.len()));
    }
    if shape.fewest_elements() > MOST_ELEMENTS {
        return Err(format!("a row of {of} has more than {MOST_ELEMENTS} elements"));
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests;
