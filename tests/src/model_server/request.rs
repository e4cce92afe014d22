//! Checks a request and reads its rows as TensorFlow Serving does, with its codes and texts. Those about names
//! are in tensorflow_serving/servables/tensorflow/predict_util.cc and model_servers/server_core.cc; those about
//! shapes and types come from TensorFlow's kernels.

use std::time::Duration;

use prost::Message as _;
use tepal_proto::tensorflow::serving::model_spec::VersionChoice;
use tepal_proto::tensorflow::serving::{ModelSpec, PredictRequest};
use tepal_proto::tensorflow::{DataType, TensorProto};
use tonic::Status;

use super::spec::{ServerSpec, TensorSpec};

/// The label of the only version.
const LABEL: &str = "stable";
/// The only signature.
pub(super) const SIGNATURE: &str = "serving_default";
/// Elements in a tensor at most, so that a shape without values cannot take all memory.
const MAX_ELEMENTS: usize = 1 << 26;

/// The rows of a request, as the model takes them.
#[derive(Debug)]
pub(super) struct Rows {
    pub(super) count: usize,
    /// Length of the request.
    pub(super) bytes: usize,
    /// All rows, one after the other.
    pub(super) values: Vec<f32>,
    /// The outputs that are asked for; all if there are none.
    pub(super) output_filter: Vec<String>,
    /// The id of the request, in the Open Inference Protocol.
    pub(super) id: String,
    /// The time that the client allows for the call, in the Open Inference Protocol.
    pub(super) deadline: Option<Duration>,
}

/// One input as it was sent.
pub(super) struct Input {
    pub(super) sizes: Vec<usize>,
    pub(super) values: Vec<f32>,
}

impl Input {
    fn row(&self, row: usize) -> &[f32] {
        let len = self.values.len() / self.sizes[0];
        &self.values[row * len..][..len]
    }
}

/// Whether a request is for the model and version that are served; while the model loads, none is.
pub(super) fn check_model(
    spec: &ServerSpec,
    model: Option<&ModelSpec>,
    available: bool,
) -> Result<(), Status> {
    let model = model.ok_or_else(|| Status::invalid_argument("Missing ModelSpec"))?;
    let wanted = match &model.version_choice {
        None => format!("Latest({})", model.name),
        Some(VersionChoice::Version(version)) => format!("Specific({}, {version})", model.name),
        Some(VersionChoice::VersionLabel(label)) if label == LABEL => format!("Latest({})", model.name),
        Some(VersionChoice::VersionLabel(label)) => {
            let text = format!("Unrecognized servable version label: {label}");
            return Err(Status::invalid_argument(text));
        }
    };
    let version_known = version_of(model).is_none_or(|version| version == spec.version);
    if available && model.name == spec.model && version_known {
        Ok(())
    } else {
        Err(Status::not_found(format!("Servable not found for request: {wanted}")))
    }
}

/// The version number in a request.
pub(super) fn version_of(model: &ModelSpec) -> Option<i64> {
    match model.version_choice {
        Some(VersionChoice::Version(version)) => Some(version),
        _ => None,
    }
}

/// Reads the rows of a request for this model.
pub(super) fn read_rows(spec: &ServerSpec, request: &PredictRequest) -> Result<Rows, Status> {
    check_names(spec, request)?;
    let parsed = spec.inputs.iter().map(|input| parse(input, &request.inputs[&input.name]));
    let inputs = parsed.collect::<Result<Vec<_>, _>>()?;
    for (input, expected) in inputs.iter().zip(&spec.inputs) {
        check_shape(&input.sizes, expected)?;
    }
    let count = common_count(&inputs)?;
    let (bytes, output_filter) = (request.encoded_len(), request.output_filter.clone());
    let (values, id, deadline) = (interleave(count, &inputs), String::new(), None);
    Ok(Rows { count, bytes, values, output_filter, id, deadline })
}

fn check_names(spec: &ServerSpec, request: &PredictRequest) -> Result<(), Status> {
    let signature = request.model_spec.as_ref().map_or("", |model| model.signature_name.as_str());
    if !["", SIGNATURE].contains(&signature) {
        let text = format!("Serving signature key \"{signature}\" not found.");
        return Err(Status::failed_precondition(text));
    }
    let sent: Vec<&str> = request.inputs.keys().map(String::as_str).collect();
    let mut known: Vec<&str> = spec.inputs.iter().map(|input| input.name.as_str()).collect();
    known.sort_unstable();
    if sent.len() != known.len() {
        return Err(Status::invalid_argument(wrong_count(&sent, &known)));
    }
    if let Some(alias) = sent.iter().find(|alias| !known.contains(alias)) {
        let known = known.join(",");
        return Err(Status::invalid_argument(format!(
            "input tensor alias not found in signature: {alias}. Inputs expected to be in the set {{{known}}}."
        )));
    }
    let known: Vec<_> = spec.outputs().map(|output| output.name).collect();
    if let Some(alias) = request.output_filter.iter().find(|alias| !known.contains(alias)) {
        let known = known.join(",");
        return Err(Status::invalid_argument(format!(
            "output tensor alias not found in signature: {alias} Outputs expected to be in the set {{{known}}}."
        )));
    }
    Ok(())
}

fn wrong_count(sent: &[&str], known: &[&str]) -> String {
    let without = |all: &[&str], others: &[&str]| {
        all.iter().copied().filter(|name| !others.contains(name)).collect::<Vec<_>>().join(",")
    };
    format!(
        "input size does not match signature: {}!={} len({{{}}}) != len({{{}}}). Sent extra: {{{}}}. \
         Missing but required: {{{}}}.",
        sent.len(),
        known.len(),
        sent.join(","),
        known.join(","),
        without(sent, known),
        without(known, sent),
    )
}

/// Reads a tensor. No values at all are zeros, and a short list is filled up with its last value, without an
/// error: so does TensorFlow.
fn parse(spec: &TensorSpec, tensor: &TensorProto) -> Result<Input, Status> {
    let unreadable = || Status::invalid_argument(format!("tensor parsing error: {}", spec.name));
    let sizes = sizes(tensor).ok_or_else(unreadable)?;
    let len = element_count(&sizes).ok_or_else(unreadable)?;
    let given = tensor.dtype();
    if given == DataType::DtInvalid {
        return Err(unreadable());
    } else if given != spec.dtype() {
        let name = |dtype: DataType| dtype.as_str_name().trim_start_matches("DT_").to_lowercase();
        let text = format!("Expects arg[0] to be {} but {} is provided", name(spec.dtype()), name(given));
        return Err(Status::invalid_argument(text));
    }
    if spec.is_text {
        let values = texts(tensor).filter(|values| values.len() == len).ok_or_else(unreadable)?;
        return Ok(Input { sizes, values });
    }
    let content = &tensor.tensor_content;
    let values = if content.is_empty() {
        let mut values = tensor.float_val.clone();
        values.resize(len, values.last().copied().unwrap_or(0.0));
        values
    } else if content.len() == len * size_of::<f32>() {
        content.as_chunks().0.iter().copied().map(f32::from_le_bytes).collect()
    } else {
        return Err(unreadable());
    };
    Ok(Input { sizes, values })
}

/// The numbers of a tensor of texts.
fn texts(tensor: &TensorProto) -> Option<Vec<f32>> {
    let number = |text: &Vec<u8>| std::str::from_utf8(text).ok()?.parse().ok();
    tensor.string_val.iter().map(number).collect()
}

/// The sizes of a tensor's axes; `None` if one is negative.
fn sizes(tensor: &TensorProto) -> Option<Vec<usize>> {
    let dims = tensor.tensor_shape.iter().flat_map(|shape| &shape.dim);
    dims.map(|dim| usize::try_from(dim.size).ok()).collect()
}

pub(super) fn element_count(sizes: &[usize]) -> Option<usize> {
    let count = sizes.iter().try_fold(1_usize, |count, size| count.checked_mul(*size))?;
    (count <= MAX_ELEMENTS).then_some(count)
}

fn check_shape(sizes: &[usize], expected: &TensorSpec) -> Result<(), Status> {
    let row_shape = &expected.row_shape;
    if sizes.len() != row_shape.len() + 1 {
        let text = format!("In[0] is not a matrix. Instead it has shape {}", list(sizes));
        Err(Status::invalid_argument(text))
    } else if sizes[1..] != **row_shape {
        Err(incompatible(sizes, row_shape))
    } else {
        Ok(())
    }
}

pub(super) fn common_count(inputs: &[Input]) -> Result<usize, Status> {
    let first = &inputs[0].sizes;
    match inputs.iter().find(|input| input.sizes[0] != first[0]) {
        Some(other) => Err(incompatible(first, &other.sizes)),
        None => Ok(first[0]),
    }
}

fn incompatible(sizes: &[usize], others: &[usize]) -> Status {
    Status::invalid_argument(format!("Incompatible shapes: {} vs. {}", list(sizes), list(others)))
}

/// Sizes as TensorFlow prints them: `[1,4]`.
fn list(sizes: &[usize]) -> String {
    let sizes: Vec<String> = sizes.iter().map(usize::to_string).collect();
    format!("[{}]", sizes.join(","))
}

/// Puts the inputs of each row side by side.
pub(super) fn interleave(count: usize, inputs: &[Input]) -> Vec<f32> {
    let rows = (0..count).flat_map(|row| inputs.iter().flat_map(move |input| input.row(row)));
    rows.copied().collect()
}
