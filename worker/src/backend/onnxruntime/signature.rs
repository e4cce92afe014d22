//! What a loaded model takes and returns, beside what its description says.

use ort::{
    session::Session,
    value::{Outlet, ValueType},
};
use serde_json::{Value, json};
use tepal_shared::{model::Model, tensor::DataType};

use super::convert;

/// The model and its description differ, or the model has values that are no tensors.
#[derive(Debug, thiserror::Error)]
pub(super) enum SignatureError {
    #[error("it has no {kind} `{name}`, but {known}")]
    NoSuch { kind: &'static str, name: String, known: String },
    #[error("it also takes the input `{0}`, which model.toml does not describe")]
    Undescribed(String),
    #[error("its {kind} `{name}` is {given}, not {described}")]
    DataType { kind: &'static str, name: String, given: &'static str, described: &'static str },
    #[error(
        "its {kind} `{name}` is of the type {given}, which Tepal does not support; export the model with tensors only{}",
        or_without(.kind)
    )]
    NoTensor { kind: &'static str, name: String, given: String },
}

fn or_without(kind: &str) -> &'static str {
    if kind == "output" { ", or leave this output out of model.toml" } else { "" }
}

/// Compares names and datatypes. The lengths of axes are compared by the doctor and, with each answer, by the worker.
pub(super) fn check(session: &Session, model: &Model) -> Result<(), SignatureError> {
    for input in &model.inputs {
        compare("input", session.inputs(), &input.name, input.datatype)?;
    }
    for output in model.outputs() {
        compare("output", session.outputs(), &output.name, output.datatype)?;
    }
    let is_described = |outlet: &&Outlet| model.inputs.iter().any(|input| input.name == outlet.name());
    let undescribed = session.inputs().iter().find(|outlet| !is_described(outlet));
    undescribed.map_or(Ok(()), |outlet| Err(SignatureError::Undescribed(outlet.name().to_owned())))
}

fn compare(
    kind: &'static str,
    all: &[Outlet],
    name: &str,
    described: DataType,
) -> Result<(), SignatureError> {
    let name = name.to_owned();
    let Some(outlet) = all.iter().find(|outlet| outlet.name() == name) else {
        let known: Vec<_> = all.iter().map(|outlet| format!("`{}`", outlet.name())).collect();
        return Err(SignatureError::NoSuch { kind, name, known: known.join(", ") });
    };
    let form = match (kind, outlet.dtype()) {
        // Maps can be returned, but not given.
        ("input", ValueType::Sequence(_)) => None,
        (_, of) => convert::form(of),
    };
    let Some((given, _)) = form else {
        return Err(SignatureError::NoTensor { kind, name, given: outlet.dtype().to_string() });
    };
    if given != described {
        let (given, described) = (given.as_str(), described.as_str());
        return Err(SignatureError::DataType { kind, name, given, described });
    }
    Ok(())
}

/// The description, with the shapes of the loaded model.
pub(super) fn metadata(session: &Session, model: &Model) -> Value {
    let mut metadata = model.metadata();
    let signature = &mut metadata["metadata"]["signature_def"][&model.signature];
    for (kind, outlets) in [("inputs", session.inputs()), ("outputs", session.outputs())] {
        for outlet in outlets {
            let Some((datatype, shape)) = convert::form(outlet.dtype()) else { continue };
            // Outputs that are not described are not returned.
            let Some(described) = signature[kind].get_mut(outlet.name()) else { continue };
            let mut dims: Vec<_> = shape.iter().map(|length| json!({"size": length.to_string()})).collect();
            if kind == "outputs" {
                correct(&mut dims, &described["tensor_shape"]["dim"]);
            }
            *described = json!({"dtype": datatype.tensorflow_name(), "tensor_shape": {"dim": dims}});
        }
    }
    metadata
}

/// Some exporters fix axes of outputs that vary, above all the batch axis of labels. ONNX Runtime only warns about that.
fn correct(dims: &mut [Value], described: &Value) {
    let described = described.as_array().filter(|described| described.len() == dims.len());
    for (dim, described) in dims.iter_mut().zip(described.into_iter().flatten()) {
        if described["size"] == "-1" {
            dim.clone_from(described);
        }
    }
}
