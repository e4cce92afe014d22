mod file;

use std::{path::PathBuf, time::Duration};

use serde_json::json;
use tempfile::TempDir;
use tepal_shared::tensor::{DataType, bytes};
use tepal_tests::{onnxruntime::library, wait::eventually};
use tract_onnx::pb::tensor_proto::DataType as Type;

use self::file::{GraphBuilder, value};
use super::*;
use crate::{backend::settings::OnnxRuntimeSettings, testing::call};

fn settings() -> OnnxRuntimeSettings {
    OnnxRuntimeSettings { library: Some(library().to_owned()), threads: 2 }
}

fn open(model: &Model) -> Result<OnnxRuntime, String> {
    OnnxRuntime::open(&settings(), model, &Compute::of_process())
        .map_err(|error| tepal_shared::process::telemetry::chain(&error))
}

fn of_checkout(folder: &str, name: &str) -> Model {
    Model::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder), name).unwrap()
}

/// A model in a folder of its own. Its description has a sample for no input in particular.
struct Folder(TempDir);

impl Folder {
    fn new(graph: GraphBuilder) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        std::fs::create_dir(folder.0.path().join("it")).unwrap();
        std::fs::write(folder.file(), graph.bytes()).unwrap();
        folder
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("it/model.onnx")
    }

    /// The model with these inputs and outputs (tables of model.toml) and this sample. The repository does not compare them with
    /// the file: the backend must.
    fn model(&self, inputs: &str, outputs: &str, sample: &str) -> Model {
        let text = format!("max_batch = 16\nsample = {sample}\ninputs = [{inputs}]\noutputs = [{outputs}]\n");
        let elsewhere = tempfile::tempdir().unwrap();
        std::fs::create_dir(elsewhere.path().join("it")).unwrap();
        std::fs::write(elsewhere.path().join("it/model.toml"), text).unwrap();
        let mut model = Model::load(elsewhere.path(), "it").unwrap();
        model.onnx_file = Some(self.file());
        model
    }
}

fn tensor(name: &str, datatype: DataType, shape: &[usize], data: Vec<u8>) -> Tensor {
    Tensor { name: name.to_owned(), datatype, shape: shape.to_vec(), data }
}

fn strings(elements: &[&[u8]]) -> Vec<u8> {
    let mut data = Vec::new();
    elements.iter().for_each(|element| bytes::append(&mut data, element).unwrap());
    data
}

#[tokio::test]
async fn the_iris_model_classifies_two_flowers() {
    let model = of_checkout("compose/models", "iris");
    let rows = model.read_data(&json!([[5.1, 3.5, 1.4, 0.2], [6.3, 3.3, 6.0, 2.5]])).unwrap();
    let backend = open(&model).unwrap();

    let answer = backend.predict(call(model.concatenate(std::iter::once(&rows)))).await.unwrap();

    let answer = model.check_outputs(2, answer).unwrap();
    let class = |row| model.render(&answer, row..row + 1, usize::MAX).unwrap().class_name;
    assert_eq!((class(0).as_deref(), class(1).as_deref()), (Some("setosa"), Some("virginica")));
    assert!(backend.library().unwrap().starts_with("ONNX Runtime 1."), "{:?}", backend.library());
}

/// Each type of the Open Inference Protocol, with ONNX's name of it.
const TYPES: [(DataType, Type); 14] = [
    (DataType::Bool, Type::Bool),
    (DataType::Uint8, Type::Uint8),
    (DataType::Uint16, Type::Uint16),
    (DataType::Uint32, Type::Uint32),
    (DataType::Uint64, Type::Uint64),
    (DataType::Int8, Type::Int8),
    (DataType::Int16, Type::Int16),
    (DataType::Int32, Type::Int32),
    (DataType::Int64, Type::Int64),
    (DataType::Fp16, Type::Float16),
    (DataType::Bf16, Type::Bfloat16),
    (DataType::Fp32, Type::Float),
    (DataType::Fp64, Type::Double),
    (DataType::Bytes, Type::String),
];

#[tokio::test]
async fn every_type_passes_the_engine_unchanged() {
    for (datatype, element) in TYPES {
        let graph = GraphBuilder::new()
            .input(value("x", element, &[-1, 2]))
            .node("Identity", &["x"], &["y"])
            .output(value("y", element, &[-1, 2]));
        let folder = Folder::new(graph);
        let spec =
            |name| format!(r#"{{ name = "{name}", datatype = "{}", shape = [2] }}"#, datatype.as_str());
        let sample = match datatype {
            DataType::Bool => "[[true, false]]",
            DataType::Bytes => r#"[["a", "b"]]"#,
            _ => "[[1, 0]]",
        };
        let model = folder.model(&spec("x"), &spec("y"), sample);
        let data = match datatype.width() {
            Some(width) => vec![1; 4 * width],
            None => strings(&["\u{e9}".as_bytes(), b"", b"abc", b"d"]),
        };
        let given = tensor("x", datatype, &[2, 2], data.clone());

        let backend = open(&model).unwrap();
        let answer = backend.predict(call(Batch { rows: 2, inputs: vec![given] })).await.unwrap();

        assert_eq!(answer, [tensor("y", datatype, &[2, 2], data)], "{datatype:?}");
        let metadata = backend.probe().await.unwrap();
        let output = &metadata["metadata"]["signature_def"]["serving_default"]["outputs"]["y"];
        assert_eq!(output["dtype"], datatype.tensorflow_name());
        assert_eq!(output["tensor_shape"], json!({"dim": [{"size": "-1"}, {"size": "2"}]}));
    }
}

#[tokio::test]
async fn scalars_and_several_outputs_come_in_the_described_order() {
    let graph = GraphBuilder::new()
        .input(value("half", Type::Float, &[]))
        .input(value("ids", Type::Int64, &[-1]))
        .node("Neg", &["half"], &["minus"])
        .node("Neg", &["ids"], &["negative"])
        .output(value("minus", Type::Float, &[]))
        .output(value("negative", Type::Int64, &[-1]));
    let folder = Folder::new(graph);
    let inputs = r#"{ name = "half", datatype = "FP32", shape = [] }, { name = "ids", datatype = "INT64", shape = [] }"#;
    let outputs = r#"{ name = "negative", datatype = "INT64", shape = [] }, { name = "minus", datatype = "FP32", shape = [] }"#;
    let model = folder.model(inputs, outputs, "[{ half = 0.5, ids = 1 }]");
    let scalar = tensor("half", DataType::Fp32, &[], 0.5_f32.to_le_bytes().to_vec());
    let ids = tensor("ids", DataType::Int64, &[2], [7_i64.to_le_bytes(), (-1_i64).to_le_bytes()].concat());

    let answer =
        open(&model).unwrap().predict(call(Batch { rows: 2, inputs: vec![scalar, ids] })).await.unwrap();

    let negative =
        tensor("negative", DataType::Int64, &[2], [(-7_i64).to_le_bytes(), 1_i64.to_le_bytes()].concat());
    assert_eq!(answer, [negative, tensor("minus", DataType::Fp32, &[], (-0.5_f32).to_le_bytes().to_vec())]);
}

#[tokio::test]
async fn maps_of_probabilities_become_a_row_each_in_the_order_of_their_keys() {
    let model = of_checkout("tests/models", "zipmap");
    let rows = model.read_data(&json!([[5.1, 3.5, 1.4, 0.2], [6.3, 3.3, 6.0, 2.5]])).unwrap();

    let answer =
        open(&model).unwrap().predict(call(model.concatenate(std::iter::once(&rows)))).await.unwrap();

    assert_eq!(answer[0].shape, [2, 3]);
    assert_eq!(answer[1], tensor("output_label", DataType::Bytes, &[2], strings(&[b"setosa", b"virginica"])));
    let answer = model.check_outputs(2, answer).unwrap();
    let class = |row| model.render(&answer, row..row + 1, usize::MAX).unwrap().class_name;
    assert_eq!((class(0).as_deref(), class(1).as_deref()), (Some("setosa"), Some("virginica")));
}

#[tokio::test]
async fn strings_that_the_engine_does_not_take_fail_with_a_sentence() {
    let graph = GraphBuilder::new()
        .input(value("x", Type::String, &[-1]))
        .node("Identity", &["x"], &["y"])
        .output(value("y", Type::String, &[-1]));
    let folder = Folder::new(graph);
    let spec = |name| format!(r#"{{ name = "{name}", datatype = "BYTES", shape = [] }}"#);
    let model = folder.model(&spec("x"), &spec("y"), r#"["a"]"#);
    let backend = open(&model).unwrap();
    for (string, why) in [
        (
            &b"\xff"[..],
            "has a string that is not UTF-8, and ONNX Runtime takes no other: invalid utf-8 sequence",
        ),
        (b"a\0", "has a string that contains a NUL, which ONNX Runtime does not take"),
    ] {
        let given = tensor("x", DataType::Bytes, &[1], strings(&[string]));

        let error = backend.predict(call(Batch { rows: 1, inputs: vec![given] })).await.unwrap_err();

        assert_eq!((error.verdict, error.code), (Verdict::Unusable, "model_error"));
        let expected = format!("Model inference failed: the input `x` {why}");
        assert!(error.message.starts_with(&expected), "{}", error.message);
    }
}

#[tokio::test]
async fn an_input_that_the_model_refuses_fails_and_the_next_one_succeeds() {
    let graph = GraphBuilder::new()
        .input(value("x", Type::Float, &[-1, 2]))
        .node("Neg", &["x"], &["y"])
        .output(value("y", Type::Float, &[-1, 2]));
    let folder = Folder::new(graph);
    let spec = |name| format!(r#"{{ name = "{name}", datatype = "FP32", shape = [2] }}"#);
    let backend = open(&folder.model(&spec("x"), &spec("y"), "[[1, 2]]")).unwrap();
    let given = |axis| tensor("x", DataType::Fp32, &[1, axis], vec![0; 4 * axis]);

    let error = backend.predict(call(Batch { rows: 1, inputs: vec![given(3)] })).await.unwrap_err();
    assert_eq!(error.verdict, Verdict::Unusable);
    assert!(error.message.contains("Got invalid dimensions for input: x"), "{}", error.message);

    let shorter = Tensor { data: vec![0; 7], ..given(2) };
    let error = backend.predict(call(Batch { rows: 1, inputs: vec![shorter] })).await.unwrap_err();
    assert!(error.message.contains("the input `x` cannot be passed on: "), "{}", error.message);

    backend.predict(call(Batch { rows: 1, inputs: vec![given(2)] })).await.unwrap();
}

#[tokio::test]
async fn a_dropped_call_aborts_its_run() {
    // Counts to the input, which takes for ever.
    let graph = GraphBuilder::new()
        .input(value("times", Type::Int64, &[1]))
        .count("times", "counted")
        .output(value("counted", Type::Int64, &[1]));
    let folder = Folder::new(graph);
    let spec = |name| format!(r#"{{ name = "{name}", datatype = "INT64", shape = [] }}"#);
    let backend = open(&folder.model(&spec("times"), &spec("counted"), "[1]")).unwrap();
    let times = |times: i64| Batch {
        rows: 1,
        inputs: vec![tensor("times", DataType::Int64, &[1], times.to_le_bytes().to_vec())],
    };

    let endless = backend.predict(call(times(i64::MAX)));
    assert!(tokio::time::timeout(Duration::from_millis(100), endless).await.is_err());

    let answer = backend.predict(call(times(3))).await.unwrap();
    assert_eq!(answer[0].data, 3_i64.to_le_bytes());
    // The thread of the aborted run has ended, too.
    eventually(Duration::from_secs(30), "the session to be unused", async || {
        backend.session.try_lock().map(|_| ()).map_err(|error| error.to_string())
    })
    .await;
}

#[tokio::test]
async fn an_axis_of_an_output_that_the_file_fixes_wrongly_is_as_described() {
    let graph = GraphBuilder::new()
        .input(value("x", Type::Float, &[-1]))
        .node("Neg", &["x"], &["y"])
        .output(value("y", Type::Float, &[1]));
    let folder = Folder::new(graph);
    let spec = |name| format!(r#"{{ name = "{name}", datatype = "FP32", shape = [] }}"#);
    let backend = open(&folder.model(&spec("x"), &spec("y"), "[1]")).unwrap();
    let given = tensor("x", DataType::Fp32, &[3], vec![0; 12]);

    let answer = backend.predict(call(Batch { rows: 3, inputs: vec![given] })).await.unwrap();

    assert_eq!(answer[0].shape, [3]);
    let metadata = backend.probe().await.unwrap();
    let output = &metadata["metadata"]["signature_def"]["serving_default"]["outputs"]["y"];
    assert_eq!(output["tensor_shape"], json!({"dim": [{"size": "-1"}]}));
}

#[test]
fn a_model_that_cannot_be_loaded_says_which_operator_of_which_node() {
    let graph = GraphBuilder::new()
        .input(value("x", Type::Float, &[-1]))
        .node("Frobnicate", &["x"], &["y"])
        .output(value("y", Type::Float, &[-1]));
    let folder = Folder::new(graph);
    let spec = |name| format!(r#"{{ name = "{name}", datatype = "FP32", shape = [] }}"#);
    let model = folder.model(&spec("x"), &spec("y"), "[1]");

    let error = open(&model).err().unwrap();
    assert!(
        error.starts_with(&format!("the ONNX file {} cannot be loaded: ", folder.file().display())),
        "{error}"
    );
    assert!(error.contains("Frobnicate") && error.contains("node of y"), "{error}");

    std::fs::write(folder.file(), "no model").unwrap();
    let error = open(&model).err().unwrap();
    assert!(error.contains("Protobuf parsing failed"), "{error}");
}

#[test]
fn a_description_that_contradicts_the_model_is_refused_with_both_sides() {
    let graph = GraphBuilder::new()
        .input(value("x", Type::Float, &[-1]))
        .input(value("scale", Type::Float, &[-1]))
        .node("Mul", &["x", "scale"], &["y"])
        .output(value("y", Type::Float, &[-1]));
    let folder = Folder::new(graph);
    let spec = |name, datatype| format!(r#"{{ name = "{name}", datatype = "{datatype}", shape = [] }}"#);
    let (x, y) = (spec("x", "FP32"), spec("y", "FP32"));
    let both = format!("{x}, {}", spec("scale", "FP32"));
    let cases = [
        (x.clone(), y.clone(), "[1]", "it also takes the input `scale`, which model.toml does not describe"),
        (spec("z", "FP32"), y.clone(), "[1]", "it has no input `z`, but `x`, `scale`"),
        (both.clone(), spec("z", "FP32"), "[{ x = 1, scale = 1 }]", "it has no output `z`, but `y`"),
        (spec("x", "INT64"), y, "[1]", "its input `x` is FP32, not INT64"),
        (both, spec("y", "FP64"), "[{ x = 1, scale = 1 }]", "its output `y` is FP32, not FP64"),
    ];
    for (inputs, outputs, sample, expected) in cases {
        let error = open(&folder.model(&inputs, &outputs, sample)).err().unwrap();
        assert!(error.ends_with(expected), "{error}");
    }
}
