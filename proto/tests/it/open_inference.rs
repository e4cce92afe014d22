//! Wire compatibility with servers of the Open Inference Protocol: our .proto file says what theirs say, and bytes made by their
//! official Python stubs decode to the right values and back. `tests/official_open_inference.py` records both.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    field_descriptor_proto::{Label, Type},
};
use tepal_proto::open_inference::{
    DataType, InferParameter, InferTensorContents, ModelConfig, ModelConfigResponse, ModelInferRequest,
    ModelInferResponse, ModelInput, ModelMetadataResponse, ModelOutput, grpc_inference_service_server,
    infer_parameter::ParameterChoice,
    model_infer_request::{InferInputTensor, InferRequestedOutputTensor},
    model_infer_response::InferOutputTensor,
    model_metadata_response::TensorMetadata,
};

use super::open_inference_bytes as official;
use super::{CONTENT, assert_same, bytes, named};

/// What the protocol and its servers say: name, fact, and who says it.
const RECORD: &str = include_str!("open_inference.txt");

fn recorded() -> Vec<(&'static str, &'static str, &'static str)> {
    let line = |line: &'static str| {
        let (name, rest) = line.split_once(": ").unwrap();
        let (fact, who) = rest.rsplit_once(": ").unwrap();
        (name, fact, who)
    };
    RECORD.lines().map(line).collect()
}

/// The facts of our file, named as in the record.
fn ours() -> BTreeMap<String, String> {
    // Tests run in the folder of their package. Its path at build time may be that of another checkout with the same target folder.
    let files = protox::compile(["open_inference/open_inference.proto"], ["proto"]).unwrap();
    let file = &files.file[0];
    let mut facts = BTreeMap::new();
    for message in &file.message_type {
        of_message(message, message.name(), &mut facts);
    }
    for value in file.enum_type.iter().flat_map(|kind| &kind.value) {
        facts.insert(format!("DataType.{}", value.name()), value.number().to_string());
    }
    of_service(file, &mut facts);
    facts
}

fn of_message(message: &DescriptorProto, name: &str, facts: &mut BTreeMap<String, String>) {
    for field in &message.field {
        let choice = field.oneof_index.map(|index| message.oneof_decl[index as usize].name());
        facts.insert(format!("{name}.{}", field.name()), of_field(field, choice));
    }
    for nested in &message.nested_type {
        of_message(nested, &format!("{name}.{}", nested.name()), facts);
    }
}

fn of_field(field: &FieldDescriptorProto, choice: Option<&str>) -> String {
    let label = if field.label() == Label::Repeated { "repeated" } else { "single" };
    let kind = match field.r#type() {
        Type::Message | Type::Enum => field.type_name().trim_start_matches(".inference.").to_owned(),
        kind => kind.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    };
    let choice = choice.map(|choice| format!(" in {choice}")).unwrap_or_default();
    format!("{} {label} {kind}{choice}", field.number())
}

fn of_service(file: &FileDescriptorProto, facts: &mut BTreeMap<String, String>) {
    let service = &file.service[0];
    for call in &service.method {
        assert!(!call.client_streaming() && !call.server_streaming());
        let name = format!("{}.{}/{}", file.package(), service.name(), call.name());
        let [input, output] =
            [call.input_type(), call.output_type()].map(|name| name.trim_start_matches(".inference."));
        facts.insert(name, format!("({input}) returns ({output})"));
    }
}

#[test]
fn each_field_value_and_call_is_that_of_all_servers_that_have_it() {
    let recorded = recorded();
    for (name, fact) in ours() {
        let others: Vec<_> = recorded.iter().filter(|(other, ..)| *other == name).collect();
        assert!(!others.is_empty(), "nobody has {name}");
        for (_, other, who) in others {
            assert_eq!(fact, *other, "{name} of {who}");
        }
    }
}

#[test]
fn no_field_has_a_number_that_a_server_uses_for_another() {
    let message_and_number = |name: &str, fact: &str| {
        let (message, _) = name.rsplit_once('.')?;
        Some((message.to_owned(), fact.split(' ').next()?.to_owned()))
    };
    let ours = ours();
    let numbers: BTreeMap<_, _> =
        ours.iter().filter_map(|(name, fact)| Some((message_and_number(name, fact)?, name))).collect();
    for (name, fact, who) in recorded().into_iter().filter(|(name, ..)| !name.contains('/')) {
        let our_name = numbers.get(&message_and_number(name, fact).unwrap());
        assert!(our_name.is_none_or(|ours| *ours == name), "{our_name:?} is {name} of {who}");
    }
}

#[test]
fn what_all_servers_have_is_in_our_file_and_field_6_of_the_metadata_is_not() {
    let ours = ours();
    let missing: BTreeSet<_> = recorded()
        .into_iter()
        .filter(|(name, _, who)| *who == "protocol, Triton, MLServer, KServe" && !ours.contains_key(*name))
        .collect();
    assert_eq!(missing, BTreeSet::new());
    assert!(
        ours.keys().all(|name| !name.starts_with("ModelMetadataResponse.p") || name.ends_with("platform"))
    );
}

#[test]
fn the_service_has_the_official_name() {
    assert_eq!(grpc_inference_service_server::SERVICE_NAME, "inference.GRPCInferenceService");
}

fn parameter(choice: ParameterChoice) -> InferParameter {
    InferParameter { parameter_choice: Some(choice) }
}

#[test]
fn a_request_has_the_official_bytes() {
    let input = |name: &str, datatype: &str, shape: &[i64]| InferInputTensor {
        name: name.to_owned(),
        datatype: datatype.to_owned(),
        shape: shape.to_vec(),
        ..InferInputTensor::default()
    };
    let request = ModelInferRequest {
        model_name: "iris".to_owned(),
        model_version: "1".to_owned(),
        id: "7".to_owned(),
        parameters: named([
            ("a", parameter(ParameterChoice::BoolParam(true))),
            ("b", parameter(ParameterChoice::Int64Param(-1))),
            ("c", parameter(ParameterChoice::StringParam("s".to_owned()))),
            ("d", parameter(ParameterChoice::DoubleParam(0.5))),
            ("e", parameter(ParameterChoice::Uint64Param(1))),
        ]),
        inputs: vec![input("input", "FP32", &[1, 4]), input("text", "BYTES", &[1])],
        outputs: vec![InferRequestedOutputTensor {
            name: "output".to_owned(),
            parameters: named([("classification", parameter(ParameterChoice::Int64Param(2)))]),
        }],
        raw_input_contents: vec![bytes(CONTENT).into(), b"\x02\0\0\0\xff\xfe".to_vec().into()],
    };

    assert_same(official::REQUEST, &request);
}

#[test]
fn both_forms_of_an_answer_have_the_official_bytes() {
    let output = |name: &str, shape: &[i64]| InferOutputTensor {
        name: name.to_owned(),
        datatype: "FP32".to_owned(),
        shape: shape.to_vec(),
        ..InferOutputTensor::default()
    };
    let raw = ModelInferResponse {
        model_name: "iris".to_owned(),
        model_version: "1".to_owned(),
        id: "7".to_owned(),
        outputs: vec![output("output", &[1, 3])],
        raw_output_contents: vec![[0.5_f32, 0.25, 0.25].into_iter().flat_map(f32::to_le_bytes).collect()],
        ..ModelInferResponse::default()
    };
    let contents = InferTensorContents {
        bool_contents: vec![true, false],
        int_contents: vec![-1, 300],
        int64_contents: vec![-(1 << 40)],
        uint_contents: vec![7],
        uint64_contents: vec![u64::MAX],
        fp32_contents: vec![0.75],
        fp64_contents: vec![0.1],
        bytes_contents: vec![b"setosa".to_vec(), vec![0xff]],
    };
    let typed = ModelInferResponse {
        model_name: "iris".to_owned(),
        id: "7".to_owned(),
        outputs: vec![InferOutputTensor { contents: Some(contents), ..output("all", &[2]) }],
        ..ModelInferResponse::default()
    };

    assert_same(official::RAW_RESPONSE, &raw);
    assert_same(official::TYPED_RESPONSE, &typed);
}

#[test]
fn metadata_is_read_whatever_the_server_has_in_field_6() {
    let tensor = |name: &str, axis| TensorMetadata {
        name: name.to_owned(),
        datatype: "FP32".to_owned(),
        shape: vec![-1, axis],
    };
    let metadata = ModelMetadataResponse {
        name: "iris".to_owned(),
        versions: vec!["1".to_owned(), "2".to_owned()],
        platform: "python".to_owned(),
        inputs: vec![tensor("input", 4)],
        outputs: vec![tensor("output", 3)],
    };

    assert_same(official::METADATA, &metadata);
    let of_mlserver = ModelMetadataResponse::decode(&*bytes(official::METADATA_MLSERVER)).unwrap();
    assert_eq!(of_mlserver, metadata);
}

#[test]
fn a_configuration_is_read_without_the_fields_that_we_leave_out() {
    let config = ModelConfig {
        name: "iris".to_owned(),
        platform: "p".to_owned(),
        max_batch_size: 64,
        input: vec![ModelInput {
            name: "input".to_owned(),
            data_type: DataType::TypeFp32.into(),
            dims: vec![4],
        }],
        output: vec![ModelOutput {
            name: "output".to_owned(),
            data_type: DataType::TypeString.into(),
            dims: vec![-1],
        }],
        backend: "python".to_owned(),
    };

    let read = ModelConfigResponse::decode(&*bytes(official::CONFIG)).unwrap();

    assert_eq!(read.config, Some(config));
}
