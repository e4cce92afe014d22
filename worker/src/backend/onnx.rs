//! Runs an ONNX model in this process with tract, optimised once for any number of rows.

mod convert;
mod missing;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tepal_shared::{
    model::{InputSpec, Model},
    tensor::{Batch, Tensor},
};
use tract_onnx::prelude::{
    DatumType, Framework as _, InferenceFact, InferenceModelExt as _, IntoRunnable as _, TDim, TVec,
    TractError, TractResult, TypedRunnableModel,
};

use super::{Backend, BackendError, OpenError, pace::Pace};

/// A loaded model.
pub(super) struct Onnx {
    plan: Arc<TypedRunnableModel>,
    /// Names of the outputs, in the order of the description.
    outputs: Arc<[String]>,
    metadata: Value,
    pace: Arc<Pace>,
}

impl Onnx {
    pub(super) fn open(model: &Model) -> Result<Self, OpenError> {
        let path = model.onnx_file.as_ref().ok_or_else(|| OpenError::NoOnnxFile(model.name.clone()))?;
        let loaded = load(path, model).and_then(|plan| Ok((metadata(&plan, model)?, plan)));
        let (metadata, plan) = loaded
            .map_err(|error| OpenError::Onnx { path: path.display().to_string(), source: error.into() })?;
        let outputs = model.outputs().map(|output| output.name.clone()).collect();
        Ok(Self { plan, outputs, metadata, pace: Arc::new(Pace::unknown()) })
    }
}

/// Loads and optimises the model with a symbolic batch axis.
fn load(path: &std::path::Path, model: &Model) -> TractResult<Arc<TypedRunnableModel>> {
    // Exporters write the shapes of intermediate tensors for the batch of their sample, or with a symbol of their own.
    let mut graph = tract_onnx::onnx().with_ignore_value_info(true).model_for_path(path)?;
    let batch = TDim::from(graph.symbols.sym("N"));
    graph = graph
        .with_input_names(model.inputs.iter().map(|input| input.name.as_str()))?
        .with_outputs_by_name(model.outputs().map(|output| output.name.as_str()))?;
    missing::check(&graph)?;
    for (number, input) in model.inputs.iter().enumerate() {
        graph = graph.with_input_fact(number, fact(input, &batch)?)?;
    }
    graph.into_optimized()?.into_runnable()
}

/// The description, with the outputs of the loaded model. The model got its inputs from the description.
fn metadata(plan: &TypedRunnableModel, model: &Model) -> TractResult<Value> {
    // An axis that only a call decides, above all the batch axis, accepts any length.
    let size = |length: &TDim| length.to_i64().map_or_else(|_| "-1".to_owned(), |length| length.to_string());
    let mut metadata = model.metadata();
    let outputs = &mut metadata["metadata"]["signature_def"][&model.signature]["outputs"];
    for (number, output) in model.outputs().enumerate() {
        let fact = plan.model().output_fact(number)?;
        let dims: Vec<_> = fact.shape.iter().map(|length| json!({"size": size(length)})).collect();
        outputs[&output.name] = json!({"dtype": dtype_name(fact.datum_type), "tensor_shape": {"dim": dims}});
    }
    Ok(metadata)
}

/// TensorFlow's name of the type, or tract's if there is none.
fn dtype_name(datum_type: DatumType) -> String {
    convert::datatype(datum_type)
        .map_or_else(|| format!("{datum_type:?}"), |datatype| datatype.tensorflow_name().to_owned())
}

fn fact(input: &InputSpec, batch: &TDim) -> TractResult<InferenceFact> {
    let InputSpec { name, datatype, .. } = input;
    let datum_type = convert::datum_type(*datatype).ok_or_else(|| {
        TractError::msg(format!(
            "the input `{name}` is {}, which this backend does not have",
            datatype.as_str()
        ))
    })?;
    let row = input.shape.iter().map(|length| TDim::from(*length));
    let shape: TVec<TDim> = std::iter::once(batch.clone()).chain(row).collect();
    Ok(InferenceFact::dt_shape(datum_type, shape))
}

impl Backend for Onnx {
    fn name(&self) -> &'static str {
        "onnx"
    }

    fn predict(&self, batch: Batch) -> BoxFuture<'_, Result<Vec<Tensor>, BackendError>> {
        let (plan, names, pace) = (Arc::clone(&self.plan), Arc::clone(&self.outputs), Arc::clone(&self.pace));
        let is_short = pace.is_short(batch.rows);
        let work = move || pace.measure(batch.rows, || compute(&plan, &names, &batch));
        Box::pin(async move {
            if is_short {
                return work();
            }
            let computed = tokio::task::spawn_blocking(work).await;
            computed.unwrap_or_else(|cancelled| Err(BackendError::inference(cancelled)))
        })
    }

    fn probe(&self) -> BoxFuture<'_, Result<Value, BackendError>> {
        let metadata = self.metadata.clone();
        Box::pin(async move { Ok(metadata) })
    }
}

/// Runs the model. An operator that panics fails the batch, not the worker.
fn compute(
    plan: &Arc<TypedRunnableModel>,
    names: &[String],
    batch: &Batch,
) -> Result<Vec<Tensor>, BackendError> {
    match catch_unwind(AssertUnwindSafe(|| run(plan, names, batch))) {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(BackendError::inference(error)),
        Err(_) => Err(BackendError::inference("the model panicked")),
    }
}

fn run(plan: &Arc<TypedRunnableModel>, names: &[String], batch: &Batch) -> TractResult<Vec<Tensor>> {
    let inputs = batch.inputs.iter().map(|input| Ok(convert::to_tract(input)?.into()));
    let inputs = inputs.collect::<TractResult<TVec<_>>>()?;
    let outputs = plan.run(inputs)?;
    names.iter().zip(&outputs).map(|(name, output)| convert::from_tract(name, output)).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::path::Path;

    use prost::Message as _;
    use tract_onnx::pb::{
        AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorShapeProto, TypeProto,
        ValueInfoProto,
        attribute_proto::AttributeType,
        tensor_proto::DataType as DatumTypeOfFile,
        tensor_shape_proto::{Dimension, dimension},
        type_proto,
    };

    use super::*;

    fn model(folder: &str, name: &str) -> Model {
        Model::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder), name).unwrap()
    }

    async fn predict(model: &Model, data: Value) -> Vec<Tensor> {
        let rows = model.read_rows(&data).unwrap();
        Onnx::open(model).unwrap().predict(model.concatenate(std::iter::once(&rows))).await.unwrap()
    }

    #[tokio::test]
    async fn the_iris_model_classifies_two_flowers() {
        let model = model("compose/models", "iris");
        let answer = predict(&model, serde_json::json!([[5.1, 3.5, 1.4, 0.2], [6.3, 3.3, 6.0, 2.5]])).await;
        let answer = model.check_outputs(2, answer).unwrap();
        assert_eq!(model.render(&answer, 0..1, usize::MAX).unwrap().class_name.as_deref(), Some("setosa"));
        assert_eq!(model.render(&answer, 1..2, usize::MAX).unwrap().class_name.as_deref(), Some("virginica"));
    }

    #[tokio::test]
    async fn a_model_of_another_shape_needs_no_other_code() {
        let model = model("tests/models", "toy");
        let answer = predict(&model, model.sample.clone()).await;
        let answer = model.check_outputs(1, answer).unwrap();
        assert_eq!(model.render(&answer, 0..1, usize::MAX).unwrap().json, r#"{"prediction":[11.5]}"#);
    }

    /// Name, type and shape of a tensor in an ONNX file.
    fn value(name: &str, elem_type: DatumTypeOfFile, shape: Option<&[i64]>) -> ValueInfoProto {
        let dimension = |length: &i64| Dimension {
            value: Some(dimension::Value::DimValue(*length)),
            ..Dimension::default()
        };
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
        let metadata = Onnx::open(&model).unwrap().probe().await.unwrap();
        let outputs = &metadata["metadata"]["signature_def"]["serving_default"]["outputs"];
        assert_eq!(
            (&outputs["half"]["dtype"], &outputs["off"]["dtype"]),
            (&"DT_HALF".into(), &"DT_BOOL".into())
        );
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
        (model.inputs[0].shape, model.output.shape) = (vec![6], vec![6]);
        (model.output.name, model.onnx_file) = ("y".to_owned(), Some(path));

        let answer = predict(&model, serde_json::json!([[1, 2, 3, 4, 5, 6], [0, 0, 0, 0, 0, 0]])).await;

        assert_eq!(answer[0].shape, [2, 6]);
    }

    const MIXED: &str = r#"
        name = "mixed"
        version = "1"
        onnx_file = "model.onnx"
        max_rows = 4
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
}
