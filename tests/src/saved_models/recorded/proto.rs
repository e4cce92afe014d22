//! The messages of TensorFlow Serving.

use std::collections::BTreeMap;

use tepal_proto::Any;
use tepal_proto::tensorflow::serving::model_spec::VersionChoice;
use tepal_proto::tensorflow::serving::{ModelSpec, PredictRequest, SignatureDefMap};
use tepal_proto::tensorflow::tensor_info::Encoding;
use tepal_proto::tensorflow::tensor_shape_proto::Dim;
use tepal_proto::tensorflow::{DataType, SignatureDef, TensorInfo, TensorProto, TensorShapeProto};
use tonic::Status;

use super::row::Row;
use crate::saved_models::Port;

/// The only version of each model.
pub(super) const VERSION: i64 = 1;
const SIGNATURE: &str = "serving_default";

/// Whether the version of a request is served.
pub(super) fn is_served(spec: &ModelSpec) -> bool {
    matches!(spec.version_choice, None | Some(VersionChoice::Version(VERSION)))
}

/// What an answer says about the model that gave it.
pub(super) fn model_spec(name: &str) -> ModelSpec {
    ModelSpec {
        name: name.to_owned(),
        version_choice: Some(VersionChoice::Version(VERSION)),
        signature_name: SIGNATURE.to_owned(),
    }
}

/// The signature of a model, packed.
pub(super) fn signatures(inputs: &[Port], outputs: &[Port]) -> Any {
    let infos = |ports: &[Port]| ports.iter().map(|port| (port.name.clone(), info(port))).collect();
    let serve = SignatureDef {
        inputs: infos(inputs),
        outputs: infos(outputs),
        method_name: "tensorflow/serving/predict".to_owned(),
    };
    let map = SignatureDefMap { signature_def: BTreeMap::from([(SIGNATURE.to_owned(), serve)]) };
    Any::from_msg(&map).expect("a message fits into an Any")
}

fn info(port: &Port) -> TensorInfo {
    TensorInfo {
        encoding: Some(Encoding::Name(format!("{}:0", port.name))),
        dtype: dtype(&port.datatype).into(),
        tensor_shape: Some(shape(port.shape.iter().copied())),
    }
}

fn dtype(datatype: &str) -> DataType {
    match datatype {
        "FP32" => DataType::DtFloat,
        "INT32" => DataType::DtInt32,
        "UINT8" => DataType::DtUint8,
        "BYTES" => DataType::DtString,
        other => panic!("no model has the datatype {other}"),
    }
}

fn shape(sizes: impl Iterator<Item = i64>) -> TensorShapeProto {
    let dim = sizes.map(|size| Dim { size, name: String::new() }).collect();
    TensorShapeProto { dim, unknown_rank: false }
}

/// Whether a request has the inputs of the model, and asks for no other outputs.
pub(super) fn check_names(inputs: &[Port], outputs: &[Port], request: &PredictRequest) -> Result<(), Status> {
    let sent: Vec<_> = request.inputs.keys().collect();
    let mut known: Vec<_> = inputs.iter().map(|port| &port.name).collect();
    known.sort();
    if sent != known {
        return Err(Status::invalid_argument(format!("inputs {sent:?} instead of {known:?}")));
    }
    match request.output_filter.iter().find(|name| !outputs.iter().any(|port| port.name == **name)) {
        Some(name) => {
            Err(Status::invalid_argument(format!("output tensor alias not found in signature: {name}")))
        }
        None => Ok(()),
    }
}

/// The rows of an input, which must have the type and the shape of the signature.
pub(super) fn rows(port: &Port, tensor: &TensorProto) -> Result<Vec<Row>, Status> {
    let refuse = |what: &str| Err(Status::invalid_argument(format!("{}: {what}", port.name)));
    if tensor.dtype() != dtype(&port.datatype) {
        return refuse("not the type of the signature");
    }
    let sizes: Vec<_> = tensor.tensor_shape.iter().flat_map(|shape| &shape.dim).map(|dim| dim.size).collect();
    let fits = |(size, fixed): (&i64, &i64)| *size > 0 && (*fixed == -1 || size == fixed);
    if sizes.len() != port.shape.len() || !sizes.iter().zip(&port.shape).all(fits) {
        return refuse("not the shape of the signature");
    }
    let sizes: Vec<_> = sizes.into_iter().filter_map(|size| usize::try_from(size).ok()).collect();
    let elements = match port.datatype.as_str() {
        "BYTES" => tensor.string_val.clone(),
        "UINT8" => chunks::<1>(&tensor.tensor_content),
        _ => chunks::<4>(&tensor.tensor_content),
    };
    if elements.len() != sizes.iter().product::<usize>() {
        return refuse("not as many elements as the shape says");
    }
    Ok(Row::split(&sizes, elements))
}

fn chunks<const N: usize>(content: &[u8]) -> Vec<Vec<u8>> {
    content.chunks(N).map(<[u8]>::to_vec).collect()
}

/// Rows as one tensor, its elements in the list of their type, as TensorFlow Serving answers by default.
pub(super) fn tensor(datatype: &str, rows: &[&Row]) -> TensorProto {
    let row_shape = rows.first().map_or(&[][..], |row| &row.shape);
    let sizes = [rows.len()].into_iter().chain(row_shape.iter().copied()).map(|size| size as i64);
    let mut tensor = TensorProto {
        dtype: dtype(datatype).into(),
        tensor_shape: Some(shape(sizes)),
        ..TensorProto::default()
    };
    for element in rows.iter().flat_map(|row| &row.elements) {
        let word = || *element.first_chunk().expect("an element of four bytes");
        match datatype {
            "FP32" => tensor.float_val.push(f32::from_le_bytes(word())),
            "INT32" => tensor.int_val.push(i32::from_le_bytes(word())),
            "UINT8" => tensor.int_val.push(element[0].into()),
            _ => tensor.string_val.push(element.clone()),
        }
    }
    tensor
}
