//! Wire compatibility with TensorFlow Serving: bytes made by its official Python stubs decode to the right
//! values, and the same values encode to those bytes. `tests/official.py` makes the bytes.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the failure")]

mod official;
mod open_inference;
mod open_inference_bytes;

use std::collections::BTreeMap;
use std::fmt::Debug;

use prost::Message;
use tepal_proto::Any;
use tepal_proto::tensorflow::error::Code;
use tepal_proto::tensorflow::serving::model_spec::VersionChoice;
use tepal_proto::tensorflow::serving::model_version_status::State;
use tepal_proto::tensorflow::serving::{
    GetModelMetadataRequest, GetModelMetadataResponse, GetModelStatusRequest, GetModelStatusResponse,
    ModelSpec, ModelVersionStatus, PredictRequest, PredictResponse, SignatureDefMap, StatusProto,
    model_service_server, prediction_service_server,
};
use tepal_proto::tensorflow::tensor_info::Encoding;
use tepal_proto::tensorflow::tensor_shape_proto::Dim;
use tepal_proto::tensorflow::{DataType, SignatureDef, TensorInfo, TensorProto, TensorShapeProto};

/// 5.1, 3.5, 1.4 and 0.2 as little-endian floats.
const CONTENT: &str = "3333a340000060403333b33fcdcc4c3e";

#[test]
fn a_predict_request_without_a_version_has_the_official_bytes() {
    let tensor = TensorProto { tensor_content: bytes(CONTENT), ..tensor(DataType::DtFloat, &[1, 4]) };
    let request = PredictRequest {
        model_spec: Some(ModelSpec { signature_name: "serving_default".to_owned(), ..spec("iris", None) }),
        inputs: named([("input", tensor)]),
        output_filter: vec![],
    };

    assert_same(official::PREDICT_REQUEST, &request);
}

#[test]
fn version_0_is_sent_as_a_version() {
    let request = PredictRequest {
        model_spec: Some(spec("iris", Some(VersionChoice::Version(0)))),
        inputs: BTreeMap::new(),
        output_filter: vec!["output".to_owned()],
    };

    assert_same(official::PREDICT_REQUEST_VERSION_0, &request);
}

#[test]
fn a_version_label_has_the_official_bytes() {
    let label = VersionChoice::VersionLabel("stable".to_owned());

    assert_same(official::LABELLED_SPEC, &spec("iris", Some(label)));
}

#[test]
fn a_predict_response_has_the_official_bytes() {
    let values = vec![0.75, 0.25, f32::INFINITY];
    let response = PredictResponse {
        model_spec: Some(ModelSpec {
            signature_name: "serving_default".to_owned(),
            ..spec("iris", Some(VersionChoice::Version(1)))
        }),
        outputs: named([("output", TensorProto { float_val: values, ..tensor(DataType::DtFloat, &[1, 3]) })]),
    };

    assert_same(official::PREDICT_RESPONSE, &response);
}

#[test]
fn outputs_of_every_type_have_the_official_bytes() {
    let strings = vec![b"setosa".to_vec(), vec![0xff]];
    let outputs = named([
        ("bool", TensorProto { bool_val: vec![true, false], ..tensor(DataType::DtBool, &[2]) }),
        ("content", TensorProto { tensor_content: bytes(CONTENT), ..tensor(DataType::DtFloat, &[2, 2]) }),
        ("double", TensorProto { double_val: vec![0.1], ..tensor(DataType::DtDouble, &[1]) }),
        ("int32", TensorProto { int_val: vec![-1, 300], ..tensor(DataType::DtInt32, &[2]) }),
        ("int64", TensorProto { int64_val: vec![-(1 << 40)], ..tensor(DataType::DtInt64, &[1]) }),
        ("string", TensorProto { string_val: strings, ..tensor(DataType::DtString, &[2]) }),
    ]);

    assert_same(official::PREDICT_RESPONSE_TYPES, &PredictResponse { model_spec: None, outputs });
}

#[test]
fn metadata_has_the_official_bytes() {
    let request = GetModelMetadataRequest {
        model_spec: Some(spec("iris", None)),
        metadata_field: vec!["signature_def".to_owned()],
    };
    let packed = Any::from_msg(&signatures()).unwrap();
    let response = GetModelMetadataResponse {
        model_spec: Some(spec("iris", Some(VersionChoice::Version(1)))),
        metadata: named([("signature_def", packed)]),
    };

    assert_same(official::METADATA_REQUEST, &request);
    assert_same(official::METADATA_RESPONSE, &response);
}

#[test]
fn the_signatures_can_be_taken_out_of_official_metadata() {
    let response = GetModelMetadataResponse::decode(&*bytes(official::METADATA_RESPONSE)).unwrap();

    let unpacked: SignatureDefMap = response.metadata["signature_def"].to_msg().unwrap();

    assert_eq!(unpacked, signatures());
}

#[test]
fn a_model_status_has_the_official_bytes() {
    let failed = StatusProto { error_code: Code::NotFound.into(), error_message: "no such file".to_owned() };
    let request = GetModelStatusRequest { model_spec: Some(spec("iris", None)) };
    let response = GetModelStatusResponse {
        model_version_status: vec![
            version_status(2, State::Available, StatusProto::default()),
            version_status(1, State::End, failed),
        ],
    };

    assert_same(official::STATUS_REQUEST, &request);
    assert_same(official::STATUS_RESPONSE, &response);
}

#[test]
fn fields_that_are_not_in_our_files_are_skipped() {
    let request = PredictRequest::decode(&*bytes(official::UNKNOWN_FIELDS)).unwrap();
    let signature = SignatureDef::decode(&*bytes(official::UNKNOWN_ENCODING)).unwrap();

    assert_eq!(request.model_spec, Some(spec("iris", None)));
    assert_eq!(
        request.inputs,
        named([("half", TensorProto { half_val: vec![15_360], ..tensor(DataType::DtHalf, &[1]) })])
    );
    let sparse = TensorInfo { encoding: None, dtype: DataType::DtFloat.into(), tensor_shape: None };
    assert_eq!(signature.inputs, named([("input", sparse)]));
    assert_eq!(signature.method_name, "m");
}

#[test]
fn an_element_type_from_the_future_is_kept_as_its_number() {
    let tensor = TensorProto::decode(&[0x08, 0xe7, 0x07][..]).unwrap();

    assert_eq!(tensor.dtype, 999);
    assert_eq!(tensor.dtype(), DataType::DtInvalid);
}

#[test]
fn services_have_the_official_names() {
    assert_eq!(prediction_service_server::SERVICE_NAME, "tensorflow.serving.PredictionService");
    assert_eq!(model_service_server::SERVICE_NAME, "tensorflow.serving.ModelService");
}

/// The official bytes decode to the message, and the message encodes to the official bytes.
#[track_caller]
fn assert_same<M: Message + Default + PartialEq + Debug>(official: &str, message: &M) {
    let official = bytes(official);
    assert_eq!(M::decode(official.as_slice()).unwrap(), *message);
    assert_eq!(message.encode_to_vec(), official);
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> = hex.chars().map(|digit| digit.to_digit(16).unwrap()).collect();
    digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap()).collect()
}

fn named<const N: usize, T>(entries: [(&str, T); N]) -> BTreeMap<String, T> {
    entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn spec(name: &str, version_choice: Option<VersionChoice>) -> ModelSpec {
    ModelSpec { name: name.to_owned(), version_choice, signature_name: String::new() }
}

fn shape(sizes: &[i64]) -> TensorShapeProto {
    let dim = sizes.iter().map(|&size| Dim { size, name: String::new() }).collect();
    TensorShapeProto { dim, unknown_rank: false }
}

fn tensor(dtype: DataType, sizes: &[i64]) -> TensorProto {
    TensorProto { dtype: dtype.into(), tensor_shape: Some(shape(sizes)), ..TensorProto::default() }
}

fn info(name: &str, dtype: DataType, tensor_shape: TensorShapeProto) -> TensorInfo {
    TensorInfo {
        encoding: Some(Encoding::Name(name.to_owned())),
        dtype: dtype.into(),
        tensor_shape: Some(tensor_shape),
    }
}

/// The signatures of a SavedModel as the server describes them.
fn signatures() -> SignatureDefMap {
    let no_shape = TensorShapeProto { unknown_rank: true, dim: vec![] };
    let init = SignatureDef {
        outputs: named([("__saved_model_init_op", info("NoOp", DataType::DtInvalid, no_shape))]),
        ..SignatureDef::default()
    };
    let serve = SignatureDef {
        inputs: named([("input", info("serving_default_input:0", DataType::DtFloat, shape(&[-1, 4])))]),
        outputs: named([("output", info("StatefulPartitionedCall:0", DataType::DtFloat, shape(&[-1, 3])))]),
        method_name: "tensorflow/serving/predict".to_owned(),
    };
    SignatureDefMap { signature_def: named([("__saved_model_init_op", init), ("serving_default", serve)]) }
}

fn version_status(version: i64, state: State, status: StatusProto) -> ModelVersionStatus {
    ModelVersionStatus { version, state: state.into(), status: Some(status) }
}
