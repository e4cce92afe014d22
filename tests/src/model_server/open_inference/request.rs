//! Checks a request and reads its rows, with Triton's codes.

use prost::Message as _;
use tepal_proto::open_inference::ModelInferRequest;
use tepal_proto::open_inference::model_infer_request::InferInputTensor;
use tonic::Status;

use super::super::request::{Input, Rows, common_count, element_count, interleave};
use super::super::spec::{ServerSpec, TensorSpec};

/// Reads the rows of a request for the model.
pub(super) fn read_rows(spec: &ServerSpec, request: &ModelInferRequest) -> Result<Rows, Status> {
    let (inputs, raw) = (&request.inputs, &request.raw_input_contents);
    if inputs.len() != spec.inputs.len() {
        let text = format!("expected {} inputs but got {} inputs", spec.inputs.len(), inputs.len());
        return Err(Status::invalid_argument(text));
    }
    if inputs.len() != raw.len() || inputs.iter().any(|input| input.contents.is_some()) {
        let text = "every input must have its contents in raw_input_contents, and none elsewhere";
        return Err(Status::invalid_argument(text));
    }
    let of_spec = |expected: &TensorSpec| {
        let number = inputs.iter().position(|input| input.name == expected.name);
        let unknown = || Status::invalid_argument(format!("input '{}' is missing", expected.name));
        let number = number.ok_or_else(unknown)?;
        parse(expected, &inputs[number], &raw[number])
    };
    let parsed = spec.inputs.iter().map(of_spec).collect::<Result<Vec<_>, _>>()?;
    let count = common_count(&parsed)?;
    check_size(spec, count)?;
    let output_filter: Vec<_> = request.outputs.iter().map(|output| output.name.clone()).collect();
    check_outputs(spec, &output_filter)?;
    Ok(Rows {
        count,
        bytes: request.encoded_len(),
        values: interleave(count, &parsed),
        output_filter,
        id: request.id.clone(),
        deadline: None,
    })
}

/// Triton takes no batch above the limit of the model.
fn check_size(spec: &ServerSpec, count: usize) -> Result<(), Status> {
    match spec.open_inference.max_batch_size {
        Some(most) if most > 0 && count > most as usize => Err(Status::invalid_argument(format!(
            "inference request batch-size must be <= {most} for '{}'",
            spec.model
        ))),
        _ => Ok(()),
    }
}

fn check_outputs(spec: &ServerSpec, names: &[String]) -> Result<(), Status> {
    let known: Vec<_> = spec.outputs().map(|output| output.name).collect();
    match names.iter().find(|name| !known.contains(name)) {
        Some(name) => Err(Status::invalid_argument(format!("unexpected inference output '{name}'"))),
        None => Ok(()),
    }
}

fn parse(expected: &TensorSpec, input: &InferInputTensor, raw: &[u8]) -> Result<Input, Status> {
    let refused = |what: String| Status::invalid_argument(format!("input '{}' {what}", expected.name));
    if input.datatype != expected.datatype() {
        return Err(refused(format!("has the data type {}, not {}", input.datatype, expected.datatype())));
    }
    let sizes: Option<Vec<usize>> = input.shape.iter().map(|size| usize::try_from(*size).ok()).collect();
    let sizes = sizes.ok_or_else(|| refused("has a negative axis".to_owned()))?;
    if sizes.get(1..) != Some(&expected.row_shape[..]) {
        return Err(refused(format!("has the unexpected shape {sizes:?}")));
    }
    let count = element_count(&sizes).ok_or_else(|| refused("is too large".to_owned()))?;
    let values = if expected.is_text { texts(raw) } else { floats(raw) };
    let values = values.filter(|values| values.len() == count);
    values
        .map(|values| Input { sizes, values })
        .ok_or_else(|| refused(format!("has {} bytes, which are not its {count} elements", raw.len())))
}

fn floats(raw: &[u8]) -> Option<Vec<f32>> {
    let (values, rest) = raw.as_chunks();
    rest.is_empty().then(|| values.iter().copied().map(f32::from_le_bytes).collect())
}

/// Numbers as text, each with its length before it.
fn texts(mut raw: &[u8]) -> Option<Vec<f32>> {
    let mut values = Vec::new();
    while !raw.is_empty() {
        let (length, rest) = raw.split_first_chunk()?;
        let (text, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        values.push(std::str::from_utf8(text).ok()?.parse().ok()?);
        raw = rest;
    }
    Some(values)
}
