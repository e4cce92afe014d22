use std::{fs, io::Write as _};

use tepal_proto::onnx::{
    AttributeProto, FunctionProto, SparseTensorProto, StringStringEntryProto, TensorShapeProto,
};

use super::*;

pub(in crate::model) const FLOAT: i32 = 1;
pub(in crate::model) const INT64: i32 = 7;
pub(in crate::model) const STRING: i32 = 8;

/// Name, type and axes of an input or output; -1 is a variable axis.
pub(in crate::model) type Facts<'a> = (&'a str, i32, Option<&'a [i64]>);

/// An ONNX file whose model does nothing.
pub(in crate::model) fn file(inputs: &[Facts], outputs: &[Facts]) -> Vec<u8> {
    encoded(inputs, outputs.iter().map(of_facts).collect())
}

/// One that has also an output `other`, a sequence of maps.
pub(in crate::model) fn other_output(inputs: &[Facts], outputs: &[Facts]) -> Vec<u8> {
    let sequence = Value::SequenceType(Box::new(type_proto::Sequence { elem_type: boxed(scores()) }));
    encoded(inputs, outputs.iter().map(of_facts).chain([other("other", sequence)]).collect())
}

/// One that takes `x` and whose output has no type.
pub(in crate::model) fn untyped_output(name: &str) -> Vec<u8> {
    let output = ValueInfoProto { name: Some(name.to_owned()), r#type: None };
    encoded(&[("x", FLOAT, Some(&[1]))], vec![output])
}

fn encoded(inputs: &[Facts], output: Vec<ValueInfoProto>) -> Vec<u8> {
    let input = inputs.iter().map(of_facts).collect();
    model(GraphProto { input, output, ..GraphProto::default() }).encode_to_vec()
}

fn of_facts((name, elem_type, axes): &Facts) -> ValueInfoProto {
    let axis = |length: &i64| usize::try_from(*length).map_or(OnnxAxis::Variable, OnnxAxis::Fixed);
    let axes: Option<Vec<_>> = axes.map(|axes| axes.iter().map(axis).collect());
    tensor(name, *elem_type, axes.as_deref())
}

/// The type of ZipMap's elements.
fn scores() -> Value {
    let scalar = type_proto::Tensor { elem_type: Some(FLOAT), shape: Some(TensorShapeProto::default()) };
    let map = type_proto::Map { key_type: Some(INT64), value_type: boxed(Value::TensorType(scalar)) };
    Value::MapType(Box::new(map))
}

fn shape(axes: &[OnnxAxis]) -> TensorShapeProto {
    let value = |axis: &OnnxAxis| match axis {
        OnnxAxis::Fixed(length) => Some(dimension::Value::DimValue(i64::try_from(*length).unwrap())),
        OnnxAxis::Named(name) => Some(dimension::Value::DimParam(name.clone())),
        OnnxAxis::Variable => None,
    };
    TensorShapeProto { dim: axes.iter().map(|axis| Dimension { value: value(axis) }).collect() }
}

fn tensor(name: &str, elem_type: i32, axes: Option<&[OnnxAxis]>) -> ValueInfoProto {
    let tensor = type_proto::Tensor { elem_type: Some(elem_type), shape: axes.map(shape) };
    other(name, Value::TensorType(tensor))
}

fn other(name: &str, value: Value) -> ValueInfoProto {
    ValueInfoProto { name: Some(name.to_owned()), r#type: Some(TypeProto { value: Some(value) }) }
}

fn boxed(value: Value) -> Option<Box<TypeProto>> {
    Some(Box::new(TypeProto { value: Some(value) }))
}

fn named(name: &str) -> TensorProto {
    TensorProto { name: Some(name.to_owned()), ..TensorProto::default() }
}

fn node(set: &str, operator: &str) -> NodeProto {
    NodeProto { op_type: Some(operator.to_owned()), domain: Some(set.to_owned()), attribute: vec![] }
}

fn model(graph: GraphProto) -> ModelProto {
    let set = OperatorSetIdProto { domain: None, version: Some(17) };
    ModelProto { opset_import: vec![set], graph: Some(graph), functions: vec![] }
}

/// A graph whose only output has this type.
fn with_output(output: ValueInfoProto) -> GraphProto {
    GraphProto { output: vec![output], ..GraphProto::default() }
}

fn parse(model: &ModelProto) -> Result<OnnxFile, String> {
    OnnxFile::parse(&model.encode_to_vec()).map_err(|error| error.to_string())
}

fn tensor_value(name: &str, datatype: DataType, shape: Option<Vec<OnnxAxis>>) -> OnnxValue {
    OnnxValue { name: name.to_owned(), kind: OnnxType::Tensor { datatype, shape } }
}

#[test]
fn the_iris_model_is_read_from_its_file() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../compose/models/iris/model.onnx");
    let rows = |length| Some(vec![OnnxAxis::Named("N".to_owned()), OnnxAxis::Fixed(length)]);
    let file = OnnxFile::read(&path).unwrap();
    assert_eq!(file.inputs, [tensor_value("input", DataType::Fp32, rows(4))]);
    assert_eq!(file.outputs, [tensor_value("output", DataType::Fp32, rows(3))]);
    assert_eq!(file.opsets, BTreeMap::from([("ai.onnx".to_owned(), 13)]));
    assert_eq!(file.operators, BTreeSet::from(["Gemm", "Relu", "Softmax"].map(str::to_owned)));
}

#[test]
fn every_datatype_and_every_kind_of_axis_is_read() {
    use tensor_proto::DataType as Onnx;
    let types = [
        (Onnx::Bool, DataType::Bool),
        (Onnx::Uint8, DataType::Uint8),
        (Onnx::Uint16, DataType::Uint16),
        (Onnx::Uint32, DataType::Uint32),
        (Onnx::Uint64, DataType::Uint64),
        (Onnx::Int8, DataType::Int8),
        (Onnx::Int16, DataType::Int16),
        (Onnx::Int32, DataType::Int32),
        (Onnx::Int64, DataType::Int64),
        (Onnx::Float16, DataType::Fp16),
        (Onnx::Bfloat16, DataType::Bf16),
        (Onnx::Float, DataType::Fp32),
        (Onnx::Double, DataType::Fp64),
        (Onnx::String, DataType::Bytes),
    ];
    assert_eq!(types.map(|(_, datatype)| datatype), DataType::ALL);
    let axes = [OnnxAxis::Fixed(3), OnnxAxis::Named("width".to_owned()), OnnxAxis::Variable];
    let input = types.map(|(onnx, datatype)| tensor(datatype.as_str(), onnx.into(), Some(&axes)));
    let output = vec![tensor("scalar", FLOAT, Some(&[])), tensor("any", INT64, None)];
    let file = parse(&model(GraphProto { input: input.to_vec(), output, ..GraphProto::default() })).unwrap();
    let expected = types.map(|(_, datatype)| tensor_value(datatype.as_str(), datatype, Some(axes.to_vec())));
    assert_eq!(file.inputs, expected);
    let expected =
        [tensor_value("scalar", DataType::Fp32, Some(vec![])), tensor_value("any", DataType::Int64, None)];
    assert_eq!(file.outputs, expected);
}

#[test]
fn the_lengths_0_and_minus_1_and_an_empty_name_are_those_of_a_variable_axis() {
    let values = [
        dimension::Value::DimValue(-1),
        dimension::Value::DimValue(0),
        dimension::Value::DimParam(String::new()),
    ];
    let dim = values.map(|value| Dimension { value: Some(value) }).to_vec();
    let tensor = type_proto::Tensor { elem_type: Some(FLOAT), shape: Some(TensorShapeProto { dim }) };
    let file = parse(&model(with_output(other("y", Value::TensorType(tensor))))).unwrap();
    assert_eq!(file.outputs, [tensor_value("y", DataType::Fp32, Some(vec![OnnxAxis::Variable; 3]))]);
}

#[test]
fn inputs_with_a_default_value_are_no_inputs() {
    let input = ["x", "weights", "sparse"].map(|name| tensor(name, FLOAT, None)).to_vec();
    let sparse_initializer = vec![SparseTensorProto { values: Some(named("sparse")) }];
    let initializer = vec![named("weights")];
    let graph = GraphProto { input, initializer, sparse_initializer, ..GraphProto::default() };
    assert_eq!(parse(&model(graph)).unwrap().inputs, [tensor_value("x", DataType::Fp32, None)]);
}

#[test]
fn a_type_that_is_no_tensor_is_described() {
    let complex = type_proto::Tensor { elem_type: Some(14), shape: None };
    let map = scores();
    let sequence = Value::SequenceType(Box::new(type_proto::Sequence { elem_type: boxed(map.clone()) }));
    let optional = type_proto::Optional { elem_type: boxed(Value::TensorType(complex.clone())) };
    let sparse = type_proto::SparseTensor { elem_type: Some(99) };
    let file = parse(&model(with_output(other("y", sequence)))).unwrap();
    let words = "a sequence (each element is a map from INT64 to FP32)";
    assert_eq!(file.outputs[0].kind, OnnxType::Maps(words.to_owned()));
    for (value, words) in [
        (map, "a map from INT64 to FP32"),
        (Value::TensorType(complex), "a tensor of COMPLEX64"),
        (Value::OptionalType(Box::new(optional)), "optional (a tensor of COMPLEX64)"),
        (Value::SparseTensorType(sparse), "a sparse tensor of the unknown type 99"),
    ] {
        let file = parse(&model(with_output(other("y", value)))).unwrap();
        assert_eq!(file.outputs[0].kind, OnnxType::Other(words.to_owned()));
    }
}

#[test]
fn operators_of_graphs_within_operators_are_found_and_those_of_the_model_itself_left_out() {
    let branch = GraphProto { node: vec![node("", "Add")], ..GraphProto::default() };
    let branches =
        AttributeProto { g: Some(branch.clone()), graphs: vec![branch], ..AttributeProto::default() };
    let if_node = NodeProto { attribute: vec![branches], ..node("ai.onnx", "If") };
    let nodes = vec![if_node, node("ai.onnx.ml", "ZipMap"), node("mine", "Twice")];
    let own = FunctionProto {
        name: Some("Twice".to_owned()),
        domain: Some("mine".to_owned()),
        node: vec![node("", "Mul")],
    };
    let mut model = model(GraphProto { node: nodes, ..GraphProto::default() });
    model.functions.push(own);
    let found = parse(&model).unwrap().operators;
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["Add", "If", "Mul", "ai.onnx.ml.ZipMap"]);
}

/// A file of this text or these bytes, and the error when it is read.
fn error_of(content: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    fs::write(&path, content).unwrap();
    let error = OnnxFile::read(&path).unwrap_err().to_string();
    error.replace(&path.display().to_string(), "model.onnx")
}

#[test]
fn a_file_that_is_no_model_is_reported_in_one_sentence() {
    assert_eq!(error_of(b""), "the ONNX file model.onnx is empty: copy it again");
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
    let expected = "the ONNX file model.onnx is a Git LFS pointer, not the model: run `git lfs pull`";
    assert_eq!(error_of(pointer), expected);
    for (text, at) in [("<html></html>", 0), ("{}", 0), ("\0\0\0\0", 0), ("\x08\x07\0\0\0", 2)] {
        let expected =
            format!("model.onnx is damaged or no ONNX file: byte {at} begins no field of an ONNX file");
        assert_eq!(error_of(text.as_bytes()), expected, "{text:?}");
    }
    assert_eq!(error_of(&[8, 7]), "model.onnx is damaged or no ONNX file: it has no graph");
    let missing = OnnxFile::read(Path::new("nowhere/model.onnx")).unwrap_err();
    assert_eq!(missing.to_string(), "cannot read the ONNX file nowhere/model.onnx");
}

#[test]
fn a_file_that_was_not_copied_to_its_end_is_reported_with_its_length() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../compose/models/iris/model.onnx");
    let whole = fs::read(path).unwrap();
    let half = error_of(&whole[..200]);
    let needs: usize = half.split("at least ").nth(1).unwrap().split(';').next().unwrap().parse().unwrap();
    assert!((201..=whole.len()).contains(&needs), "{half}");
    let expected = format!(
        "the ONNX file model.onnx is incomplete: it has 200 bytes, but needs at least {needs}; copy it again"
    );
    assert_eq!(half, expected);
}

#[test]
fn wrong_content_of_a_graph_is_reported_as_damage() {
    let unnamed = with_output(tensor("", FLOAT, None));
    let expected = "model.onnx is damaged or no ONNX file: an output has no name";
    assert_eq!(parse(&model(unnamed)).unwrap_err(), expected);
    let negative = Dimension { value: Some(dimension::Value::DimValue(-7)) };
    let shape = Some(TensorShapeProto { dim: vec![negative] });
    let negative = Value::TensorType(type_proto::Tensor { elem_type: Some(FLOAT), shape });
    let expected = "model.onnx is damaged or no ONNX file: output `y` has an axis of length -7";
    assert_eq!(parse(&model(with_output(other("y", negative)))).unwrap_err(), expected);
    // A graph in a graph in a graph ...
    let mut graph = GraphProto::default();
    for _ in 0..40 {
        let attribute = vec![AttributeProto { g: Some(graph), ..AttributeProto::default() }];
        graph = GraphProto { node: vec![NodeProto { attribute, ..node("", "If") }], ..GraphProto::default() };
    }
    let error = parse(&model(graph)).unwrap_err();
    assert!(error.ends_with("begins a graph within more than 100 others"), "{error}");
}

#[test]
fn the_elements_of_tensors_are_neither_read_nor_kept() {
    const WEIGHTS: u64 = 64 << 30;
    let mut file = tempfile::tempfile().unwrap();
    let field = |number: u64, length: u64| {
        let mut field = Vec::new();
        prost::encoding::encode_varint(number << 3 | 2, &mut field);
        prost::encoding::encode_varint(length, &mut field);
        field
    };
    // A graph of one initializer, of which the last field is raw_data.
    let name = [&field(8, 1)[..], b"w"].concat();
    let in_tensor = [name, field(9, WEIGHTS)].concat();
    let in_graph = [field(5, in_tensor.len() as u64 + WEIGHTS), in_tensor].concat();
    let start = [field(7, in_graph.len() as u64 + WEIGHTS), in_graph].concat();
    let size = start.len() as u64 + WEIGHTS;
    file.write_all(&start).unwrap();
    // A hole, which takes no room on the disk.
    file.set_len(size).unwrap();
    file.rewind().unwrap();
    let kept = sift::model(file, size).unwrap();
    let graph = GraphProto { initializer: vec![named("w")], ..GraphProto::default() };
    assert_eq!(kept, ModelProto { opset_import: vec![], ..model(graph) }.encode_to_vec());
}

/// A tensor whose elements are in another file.
fn external(entries: &[(&str, &str)]) -> TensorProto {
    let entry = |(key, value): &(&str, &str)| StringStringEntryProto {
        key: Some((*key).to_owned()),
        value: Some((*value).to_owned()),
    };
    let external_data = entries.iter().map(entry).collect();
    TensorProto { external_data, data_location: Some(1), ..named("w") }
}

/// Reads a model with external weights from a folder with `weights.bin` of 100 bytes.
fn read_external(entries: &[(&str, &str)]) -> Result<OnnxFile, String> {
    let folder = tempfile::tempdir().unwrap();
    let (inside, path) = (folder.path().join("m"), folder.path().join("m/model.onnx"));
    fs::create_dir(&inside).unwrap();
    fs::write(inside.join("weights.bin"), [0; 100]).unwrap();
    fs::write(folder.path().join("secret"), [0; 100]).unwrap();
    std::os::unix::fs::symlink("../secret", inside.join("link")).unwrap();
    std::os::unix::fs::symlink("weights.bin", inside.join("good_link")).unwrap();
    let graph = GraphProto { initializer: vec![external(entries)], ..GraphProto::default() };
    fs::write(&path, model(graph).encode_to_vec()).unwrap();
    OnnxFile::read(&path)
        .map_err(|error| error.to_string().replace(&path.display().to_string(), "model.onnx"))
}

#[test]
fn external_weights_beside_the_file_are_accepted() {
    for entries in [
        &[("location", "weights.bin")][..],
        &[("location", "./weights.bin"), ("offset", "60"), ("length", "40")],
        &[("location", "good_link"), ("length", "100")],
    ] {
        assert!(read_external(entries).is_ok(), "{entries:?}: {:?}", read_external(entries));
    }
}

#[test]
fn external_weights_elsewhere_missing_or_too_short_are_refused() {
    let cases = [
        (&[("location", "../secret")][..], "`../secret` is not in the folder of the model"),
        (&[("location", "/etc/passwd")], "`/etc/passwd` is not in the folder of the model"),
        (&[("location", "link")], "`link` is not in the folder of the model"),
        (&[("location", ".")], "`.` is not in the folder of the model"),
        (&[("location", "gone")], "`gone` must be beside it (No such file or directory (os error 2))"),
        (
            &[("location", "weights.bin"), ("offset", "61"), ("length", "40")],
            "`weights.bin` is incomplete: it has 100 bytes, but needs at least 101; copy it again",
        ),
        (
            &[("location", "weights.bin"), ("offset", "many")],
            "the tensor `w` has the offset `many`, which is no number of bytes",
        ),
        (&[], "the tensor `w` is external, but names no file"),
    ];
    for (entries, reason) in cases {
        let expected = format!("the external data of the ONNX file model.onnx cannot be used: {reason}");
        assert_eq!(read_external(entries).unwrap_err(), expected);
    }
}

#[test]
fn external_weights_inside_of_operators_are_checked() {
    let constant = AttributeProto { t: Some(external(&[("location", "/x")])), ..AttributeProto::default() };
    let constant = NodeProto { attribute: vec![constant], ..node("", "Constant") };
    let branch = GraphProto { node: vec![constant], ..GraphProto::default() };
    let branch = AttributeProto { g: Some(branch), ..AttributeProto::default() };
    let graph = GraphProto {
        node: vec![NodeProto { attribute: vec![branch], ..node("", "If") }],
        ..GraphProto::default()
    };
    assert!(error_of(&model(graph).encode_to_vec()).contains("`/x` is not in the folder"));
}

proptest::proptest! {
    #[test]
    fn a_damaged_file_is_read_as_a_whole_or_refused(
        changes in proptest::collection::vec((0..600_usize, 0..=255_u8), 0..4),
        length in 0..600_usize,
    ) {
        for name in ["iris", "zip_map"] {
            let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/seeds/onnx_file");
            let mut content = fs::read(seeds.join(name)).unwrap();
            let end = content.len();
            changes.iter().for_each(|(at, byte)| content[at % end] = *byte);
            content.truncate(length.max(1));
            crate::fuzzing::onnx_file(&content);
        }
    }
}
