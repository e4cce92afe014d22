//! The description of a model. [`repository`](super::repository) makes it of what the model says and `model.toml` adds.

use std::{collections::HashSet, ops::Not, path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    JobInput,
    endpoint::Endpoint,
    serving::Serving,
    shape::{Axis, Shape},
};
use crate::tensor::{DataType, bounds::Bounds, from_json::Allowed};

/// `TensorShape::MaxDimensions()` of TensorFlow, without the batch axis.
const MOST_AXES: usize = 253;
/// No request can contain more in a row.
pub(super) const MOST_ELEMENTS: usize = 1 << 24;

/// A model, as its description says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Model {
    /// Its name in the model server.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Which version a model server shall run.
    pub server_version: ServerVersion,
    /// The signature to call.
    pub signature: String,
    /// The ONNX file for the in-process backend, if there is one.
    #[serde(skip)]
    pub onnx_file: Option<PathBuf>,
    /// Largest number of rows of a job and of a call. 0 = the model has no batch axis: shapes are whole, and each job has a call
    /// of its own.
    pub max_batch: usize,
    /// Largest number of unfinished jobs in a partition; 0 = no limit of its own.
    pub max_queue_depth: u64,
    /// A valid value of `data`, if the description has one of a size to show. [`Model::sample_input`] derives one otherwise.
    pub sample: Option<Value>,
    /// The sample of the description, if it is too large to show. As JSON it would take ten times the memory.
    #[serde(skip)]
    pub(super) large_sample: Option<Arc<JobInput>>,
    /// The inputs, in order. With several inputs, a row is an object with a value for each.
    pub inputs: Vec<InputSpec>,
    /// The first output. It makes the prediction.
    pub output: OutputSpec,
    /// The other outputs, in order.
    pub further_outputs: Vec<OutputSpec>,
    /// How workers serve it.
    #[serde(skip)]
    pub serving: Serving,
    /// Whether its values are passed on unread, see [`content`](crate::content). Its only input and its only output are then an element
    /// of BYTES, which holds the stored form of a value.
    #[serde(default, skip_serializing_if = "Not::not")]
    pub is_opaque: bool,
    /// Where an opaque model is called.
    #[serde(skip)]
    pub endpoint: Option<Arc<Endpoint>>,
    /// Whether clients may pin this version: it is certain which one it is.
    #[serde(default, skip_serializing_if = "Not::not")]
    pub is_pinnable: bool,
    /// Other versions that clients may pin, the newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_versions: Vec<Model>,
}

/// A version in a model server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServerVersion {
    /// The newest that the server has.
    #[default]
    Newest,
    /// The one with this number.
    Number(i64),
    /// The one to which the server's configuration gives this label.
    Label(String),
}

/// One input of a model.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InputSpec {
    /// The backend's name of the input.
    pub name: String,
    /// Element type.
    pub datatype: DataType,
    /// Shape without the batch axis, if the model has one.
    pub shape: Shape,
    /// Names of the elements of a row, for error messages.
    pub features: Vec<String>,
    /// Every value must be greater than this.
    pub greater_than: Option<f64>,
    /// Every value must be less than this.
    pub less_than: Option<f64>,
}

/// One output of a model.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OutputSpec {
    /// The backend's name of the output.
    pub name: String,
    /// Element type.
    pub datatype: DataType,
    /// Shape without the batch axis, if the model has one.
    pub shape: Shape,
    /// Names of the classes, if a row contains one probability for each.
    pub labels: Vec<String>,
    /// Whether NaN and infinity are failures and not values. By default they are if there are labels.
    pub finite: Option<bool>,
}

impl Model {
    /// Whether the description contradicts itself.
    pub(in crate::model) fn check(&self) -> Result<(), String> {
        if self.inputs.is_empty() {
            return Err("it has no inputs".to_owned());
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

    /// The versions that clients may pin, the served one first.
    pub fn pinnable_versions(&self) -> impl Iterator<Item = &Self> {
        self.is_pinnable.then_some(self).into_iter().chain(&self.other_versions)
    }

    /// The same as a model server runs it: it knows which versions it has, so clients may pin only one that the description names.
    #[must_use]
    pub fn on_a_server(self) -> Self {
        let is_pinnable = matches!(self.server_version, ServerVersion::Number(_));
        Self { is_pinnable, other_versions: Vec::new(), ..self }
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
        Allowed { datatype, bounds: Bounds { greater_than, less_than }, whole_floats: true }
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
