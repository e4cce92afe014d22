use std::{path::Path, sync::mpsc};

use futures_util::FutureExt as _;
use prost::Message as _;
use tepal_shared::model::Axis;
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto,
    attribute_proto::AttributeType,
    tensor_proto::DataType as DatumTypeOfFile,
    tensor_shape_proto::{Dimension, dimension},
    type_proto,
};

use super::*;
use crate::testing::call;

fn model(folder: &str, name: &str) -> Model {
    Model::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder), name).unwrap()
}

fn open(model: &Model) -> Result<Onnx, OpenError> {
    Onnx::open(model, &Compute::of_process())
}

async fn predict(model: &Model, data: Value) -> Vec<Tensor> {
    let rows = model.read_data(&data).unwrap();
    open(model).unwrap().predict(call(model.concatenate(std::iter::once(&rows)))).await.unwrap()
}

#[tokio::test]
async fn the_iris_model_classifies_two_flowers() {
    let model = model("compose/models", "iris");
    let answer = predict(&model, serde_json::json!([[5.1, 3.5, 1.4, 0.2], [6.3, 3.3, 6.0, 2.5]])).await;
    let answer = model.check_outputs(2, answer).unwrap();
    assert_eq!(model.render(&answer, 0..1, usize::MAX).unwrap().class_name.as_deref(), Some("setosa"));
    assert_eq!(model.render(&answer, 1..2, usize::MAX).unwrap().class_name.as_deref(), Some("virginica"));
}

#[test]
fn a_damaged_file_on_which_the_engine_panics_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = model("compose/models", "iris");
    let mut file = std::fs::read(model.onnx_file.as_ref().unwrap()).unwrap();
    // The graph's output, which no node has any more.
    let output = file.windows(6).rposition(|bytes| bytes == b"output").unwrap();
    file[output] = b'?';
    let damaged = folder.path().join("model.onnx");
    std::fs::write(&damaged, file).unwrap();
    model.onnx_file = Some(damaged);

    let error = tepal_shared::process::telemetry::chain(&open(&model).err().unwrap());

    assert!(error.ends_with("the engine panicked; the file may be damaged"), "{error}");
}

#[tokio::test]
async fn a_model_of_another_shape_needs_no_other_code() {
    let model = model("tests/models", "toy");
    let answer = predict(&model, model.shown_sample().unwrap()).await;
    let answer = model.check_outputs(1, answer).unwrap();
    assert_eq!(model.render(&answer, 0..1, usize::MAX).unwrap().json, r#"{"prediction":[11.5]}"#);
}

#[tokio::test]
async fn long_calls_of_a_model_wait_for_those_of_others() {
    let model = model("tests/models", "toy");
    let rows = model.read_data(&model.shown_sample().unwrap()).unwrap();
    let compute = Arc::new(Compute::new(1));
    let backend = Onnx::open(&model, &compute).unwrap();
    let (others, (end, ended)) = (compute.calls(), mpsc::channel::<()>());
    let mut other = Box::pin(others.run(Duration::MAX, move || ended.recv()));
    assert!((&mut other).now_or_never().is_none());

    // A first call counts as long.
    let mut call = backend.predict(call(model.concatenate(std::iter::once(&rows))));
    let is_early = tokio::time::timeout(Duration::from_millis(50), &mut call).await.is_ok();
    drop(end);

    assert!(!is_early);
    assert_eq!(call.await.unwrap().len(), 1);
    assert!(other.await.unwrap().is_err());
}

/// Name, type and shape of a tensor in an ONNX file.
fn value(name: &str, elem_type: DatumTypeOfFile, shape: Option<&[i64]>) -> ValueInfoProto {
    let dimension =
        |length: &i64| Dimension { value: Some(dimension::Value::DimValue(*length)), ..Dimension::default() };
    let shape = shape.map(|shape| TensorShapeProto { dim: shape.iter().map(dimension).collect() });
    let tensor = type_proto::Tensor { elem_type: elem_type.into(), shape };
    let value = Some(type_proto::Value::TensorType(tensor));
    ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(TypeProto { value, ..TypeProto::default() }),
        ..ValueInfoProto::default()
    }
}

/// Writes an ONNX file with these nodes: operator, input, output, and the type that Cast converts to.
fn write_onnx(
    path: &Path,
    input: Vec<ValueInfoProto>,
    nodes: &[(&str, &str, &str, DatumTypeOfFile)],
    value_info: Vec<ValueInfoProto>,
) {
    let names = |name: &str| vec![name.to_owned()];
    let node = |&(op_type, input, output, to): &(&str, &str, &str, DatumTypeOfFile)| NodeProto {
        input: names(input),
        output: names(output),
        name: output.to_owned(),
        op_type: op_type.to_owned(),
        attribute: match op_type {
            "Cast" => vec![AttributeProto {
                name: "to".to_owned(),
                r#type: AttributeType::Int.into(),
                i: i32::from(to).into(),
                ..AttributeProto::default()
            }],
            _ => Vec::new(),
        },
        ..NodeProto::default()
    };
    let output = |name: &str| ValueInfoProto { name: name.to_owned(), ..ValueInfoProto::default() };
    let graph = GraphProto {
        input,
        output: nodes.iter().map(|(_, _, name, _)| output(name)).collect(),
        node: nodes.iter().map(node).collect(),
        value_info,
        ..GraphProto::default()
    };
    write_graph(path, graph);
}

fn write_graph(path: &Path, graph: GraphProto) {
    let model = ModelProto {
        ir_version: 8,
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: 17 }],
        graph: Some(graph),
        ..ModelProto::default()
    };
    std::fs::write(path, model.encode_to_vec()).unwrap();
}

#[tokio::test]
async fn a_model_of_several_types_returns_its_outputs_in_the_described_order() {
    let models = tempfile::tempdir().unwrap();
    let folder = models.path().join("mixed");
    std::fs::create_dir(&folder).unwrap();
    write_onnx(
        &folder.join("model.onnx"),
        vec![value("pixels", DatumTypeOfFile::Uint8, None), value("on", DatumTypeOfFile::Bool, None)],
        &[
            ("Cast", "pixels", "whole", DatumTypeOfFile::Int64),
            ("Not", "on", "off", DatumTypeOfFile::Bool),
            ("Cast", "pixels", "half", DatumTypeOfFile::Float16),
        ],
        Vec::new(),
    );
    std::fs::write(folder.join("model.toml"), MIXED).unwrap();
    let model = Model::load(models.path(), "mixed").unwrap();

    let data = serde_json::json!([{"pixels": [1, 255], "on": true}, {"pixels": [3, 4], "on": false}]);
    let answer = model.check_outputs(2, predict(&model, data).await).unwrap();

    let rendered: Value =
        serde_json::from_str(&model.render(&answer, 1..2, usize::MAX).unwrap().json).unwrap();
    let expected = serde_json::json!({"prediction": [3.0, 4.0], "outputs": [
        {"name": "half", "shape": [1, 2], "datatype": "FP16", "data": [3.0, 4.0]},
        {"name": "off", "shape": [1], "datatype": "BOOL", "data": [true]},
        {"name": "whole", "shape": [1, 2], "datatype": "INT64", "data": [3, 4]},
    ]});
    assert_eq!(rendered, expected);
    let metadata = open(&model).unwrap().probe().await.unwrap();
    let outputs = &metadata["metadata"]["signature_def"]["serving_default"]["outputs"];
    assert_eq!((&outputs["half"]["dtype"], &outputs["off"]["dtype"]), (&"DT_HALF".into(), &"DT_BOOL".into()));
}

#[tokio::test]
async fn shapes_inside_the_file_do_not_fix_the_number_of_rows() {
    let models = tempfile::tempdir().unwrap();
    let path = models.path().join("model.onnx");
    let float = DatumTypeOfFile::Float;
    write_onnx(
        &path,
        vec![value("x", float, None)],
        &[("Neg", "x", "middle", float), ("Neg", "middle", "y", float)],
        vec![value("middle", float, Some(&[1, 6]))],
    );
    let mut model = model("tests/models", "toy");
    (model.inputs[0].shape, model.output.shape) = ([6].into(), [6].into());
    (model.output.name, model.onnx_file) = ("y".to_owned(), Some(path));

    let answer = predict(&model, serde_json::json!([[1, 2, 3, 4, 5, 6], [0, 0, 0, 0, 0, 0]])).await;

    assert_eq!(answer[0].shape, [2, 6]);
}

/// A model that negates its only input, which has this shape.
pub(super) fn negation(folder: &Path, max_batch: usize, axes: &[Axis]) -> Model {
    let path = folder.join("model.onnx");
    let float = DatumTypeOfFile::Float;
    write_onnx(&path, vec![value("x", float, None)], &[("Neg", "x", "y", float)], Vec::new());
    let mut model = model("tests/models", "toy");
    (model.max_batch, model.sample, model.onnx_file) = (max_batch, None, Some(path));
    (model.inputs[0].shape, model.output.shape) =
        (axes.iter().copied().collect(), axes.iter().copied().collect());
    model.output.name = "y".to_owned();
    model
}

/// What the model answers, as JSON.
async fn answer(model: &Model, backend: &Onnx, data: Value) -> Result<Value, BackendError> {
    let input = model.read_data(&data).unwrap();
    let outputs = backend.predict(call(model.concatenate(std::iter::once(&input)))).await?;
    let checked = model.check_outputs(input.rows, outputs).unwrap();
    let json = model.render(&checked, 0..input.rows, usize::MAX).unwrap().json;
    Ok(serde_json::from_str(&json).unwrap())
}

#[tokio::test]
async fn calls_of_several_shapes_have_plans_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let model = negation(folder.path(), 4, &[Axis::Variable, Axis::Fixed(2)]);
    let backend = open(&model).unwrap();
    for pairs in [1, 3, 1, 2] {
        let row = vec![[1.0, 2.0]; pairs];
        let negated = json!(vec![[-1.0, -2.0]; pairs]);
        let answer = answer(&model, &backend, json!([row, row])).await.unwrap();
        assert_eq!(answer["prediction"], negated);
        assert_eq!(answer["predictions"].as_array().unwrap().len(), 2);
    }
    let metadata = backend.probe().await.unwrap();
    let outputs = &metadata["metadata"]["signature_def"]["serving_default"]["outputs"];
    let dims = json!([{"size": "-1"}, {"size": "-1"}, {"size": "2"}]);
    assert_eq!(outputs["y"], json!({"dtype": "DT_FLOAT", "tensor_shape": {"dim": dims}}));
}

#[tokio::test]
async fn a_model_without_a_batch_axis_takes_whole_shapes() {
    let folder = tempfile::tempdir().unwrap();
    for (axes, data, expected) in [
        (&[][..], json!(7), json!({"prediction": -7.0})),
        (&[Axis::Fixed(1), Axis::Fixed(2)], json!([[1, 2]]), json!({"prediction": [[-1.0, -2.0]]})),
        (&[Axis::Variable], json!([1, 2, 3]), json!({"prediction": [-1.0, -2.0, -3.0]})),
    ] {
        let model = negation(folder.path(), 0, axes);
        let backend = open(&model).unwrap();
        assert_eq!(answer(&model, &backend, data).await.unwrap(), expected);
    }
}

/// A graph that can only run one row: it reshapes its input to `[1, 6]`.
fn one_row_graph() -> GraphProto {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    GraphProto {
        input: vec![value("x", DatumTypeOfFile::Float, None)],
        output: vec![ValueInfoProto { name: "y".to_owned(), ..ValueInfoProto::default() }],
        node: vec![NodeProto {
            input: names(&["x", "shape"]),
            output: names(&["y"]),
            op_type: "Reshape".to_owned(),
            ..NodeProto::default()
        }],
        initializer: vec![TensorProto {
            name: "shape".to_owned(),
            dims: vec![2],
            data_type: DatumTypeOfFile::Int64.into(),
            int64_data: vec![1, 6],
            ..TensorProto::default()
        }],
        ..GraphProto::default()
    }
}

#[tokio::test]
async fn a_file_that_fixes_one_row_runs_rows_one_by_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = negation(folder.path(), 4, &[Axis::Fixed(2), Axis::Fixed(3)]);
    model.output.shape = [6].into();
    write_graph(&folder.path().join("model.onnx"), one_row_graph());
    let backend = open(&model).unwrap();

    let answer = answer(&model, &backend, json!([[[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [0, 0, 0]]])).await;

    let second = json!({"prediction": [7.0, 8.0, 9.0, 0.0, 0.0, 0.0]});
    assert_eq!(answer.unwrap()["predictions"][1], second);
}

#[tokio::test]
async fn shapes_that_the_model_does_not_take_fail_by_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = negation(folder.path(), 4, &[Axis::Variable]);
    model.output.shape = [6].into();
    write_graph(&folder.path().join("model.onnx"), one_row_graph());
    let backend = open(&model).unwrap();

    let error = answer(&model, &backend, json!([[1, 2]])).await.unwrap_err();

    let expected = "Model inference failed: the model does not take inputs of the shapes [[1, 2]]: ";
    assert!(error.message.starts_with(expected), "{}", error.message);
    assert!(answer(&model, &backend, json!([[1, 2, 3, 4, 5, 6]])).await.is_ok());
}

const MIXED: &str = r#"
    name = "mixed"
    version = "1"
    onnx_file = "model.onnx"
    max_batch = 4
    sample = [{ pixels = [0, 0], on = false }]
    inputs = [
        { name = "pixels", datatype = "UINT8", shape = [2] },
        { name = "on", datatype = "BOOL", shape = [] },
    ]
    outputs = [
        { name = "half", datatype = "FP16", shape = [2] },
        { name = "off", datatype = "BOOL", shape = [] },
        { name = "whole", datatype = "INT64", shape = [2] },
    ]
"#;

#[tokio::test]
async fn a_call_of_rows_that_run_one_by_one_is_short() {
    let folder = tempfile::tempdir().unwrap();
    let backend = |max_batch, axis| {
        let model = negation(folder.path(), max_batch, &[axis]);
        (open(&model).unwrap(), model)
    };
    let (any, _) = backend(4, Axis::Fixed(3));
    assert_eq!(any.most_rows(), usize::MAX);
    let (one_by_one, model) = backend(4, Axis::Variable);
    assert_eq!(one_by_one.most_rows(), 1, "before the first call");
    // On a busy machine a single call may take long.
    for _ in 0..100 {
        answer(&model, &one_by_one, json!([[1, 2]])).await.unwrap();
    }
    assert!(one_by_one.most_rows() > 1);
}
