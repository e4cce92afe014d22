//! Runs an ONNX model in this process with tract, optimised once for any number of rows.

mod convert;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tepal_shared::{
    model::{InputSpec, Model},
    process::telemetry,
    tensor::{Batch, Tensor},
};
use tract_onnx::prelude::{
    DatumType, Framework as _, InferenceFact, InferenceModelExt as _, IntoRunnable as _, TDim, TVec,
    TractError, TractResult, TypedRunnableModel,
};

use super::{Backend, BackendError, Cause, OpenError, Verdict};

/// Longest computation on a runtime thread. A longer one gets its own thread, which costs two switches of threads: some 0.1
/// ms each on cores that slept. The advice for servers is 10 to 100 us (Alice Ryhl, "Async: What is blocking?"). But a
/// worker's threads serve nothing that urgent, and a lone row with cold caches takes longer.
const LONGEST_STEP: Duration = Duration::from_micros(500);

/// A loaded model.
pub(super) struct Onnx {
    plan: Arc<TypedRunnableModel>,
    output_name: String,
    metadata: Value,
    pace: Arc<Pace>,
}

/// How long a row took recently.
#[derive(Debug)]
struct Pace {
    /// Nanoseconds, a moving average. Before the first batch it is larger than any time.
    per_row: AtomicU64,
}

impl Onnx {
    pub(super) fn open(model: &Model) -> Result<Self, OpenError> {
        let path = model.onnx_file.as_ref().ok_or_else(|| OpenError::NoOnnxFile(model.name.clone()))?;
        let loaded = load(path, model).and_then(|plan| Ok((metadata(&plan, model)?, plan)));
        let (metadata, plan) = loaded
            .map_err(|error| OpenError::Onnx { path: path.display().to_string(), source: error.into() })?;
        let output_name = model.output.name.clone();
        Ok(Self { plan, output_name, metadata, pace: Arc::new(Pace::unknown()) })
    }
}

/// Loads and optimises the model with a symbolic batch axis.
fn load(path: &std::path::Path, model: &Model) -> TractResult<Arc<TypedRunnableModel>> {
    let mut graph = tract_onnx::onnx().model_for_path(path)?;
    let batch = TDim::from(graph.symbols.sym("N"));
    graph = graph
        .with_input_names(model.inputs.iter().map(|input| input.name.as_str()))?
        .with_outputs_by_name([model.output.name.as_str()])?;
    for (number, input) in model.inputs.iter().enumerate() {
        graph = graph.with_input_fact(number, fact(input, &batch)?)?;
    }
    graph.into_optimized()?.into_runnable()
}

/// The description, with the output of the loaded model. The model got its inputs from the description.
fn metadata(plan: &TypedRunnableModel, model: &Model) -> TractResult<Value> {
    let output = plan.model().output_fact(0)?;
    // An axis that only a call decides, above all the batch axis, accepts any length.
    let size = |length: &TDim| length.to_i64().map_or_else(|_| "-1".to_owned(), |length| length.to_string());
    let dims: Vec<_> = output.shape.iter().map(|length| json!({"size": size(length)})).collect();
    let mut metadata = model.metadata();
    metadata["metadata"]["signature_def"][&model.signature]["outputs"][&model.output.name] =
        json!({"dtype": dtype_name(output.datum_type), "tensor_shape": {"dim": dims}});
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

    fn predict(&self, batch: Batch) -> BoxFuture<'_, Result<Tensor, BackendError>> {
        let (plan, name, pace) = (Arc::clone(&self.plan), self.output_name.clone(), Arc::clone(&self.pace));
        let is_short = pace.expects(batch.rows) <= LONGEST_STEP;
        let work = move || pace.measure(batch.rows, || compute(&plan, &name, &batch));
        Box::pin(async move {
            if is_short {
                return work();
            }
            let computed = tokio::task::spawn_blocking(work).await;
            computed.unwrap_or_else(|cancelled| Err(failed(cancelled)))
        })
    }

    fn probe(&self) -> BoxFuture<'_, Result<Value, BackendError>> {
        let metadata = self.metadata.clone();
        Box::pin(async move { Ok(metadata) })
    }
}

impl Pace {
    fn unknown() -> Self {
        Self { per_row: AtomicU64::new(u64::MAX) }
    }

    /// Expected time of a batch of this many rows.
    fn expects(&self, rows: usize) -> Duration {
        Duration::from_nanos(self.per_row.load(Ordering::Relaxed).saturating_mul(rows as u64))
    }

    /// Runs a batch and remembers how long it took.
    fn measure<T>(&self, rows: usize, work: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let done = work();
        let took = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX) / rows.max(1) as u64;
        let before = self.per_row.load(Ordering::Relaxed);
        // Concurrent batches may overwrite each other's measurements. One more or less does not matter.
        let average = if before == u64::MAX { took } else { before - before / 4 + took / 4 };
        self.per_row.store(average, Ordering::Relaxed);
        done
    }
}

/// The same input fails again, so a retry is useless.
fn failed(cause: impl Into<Cause>) -> BackendError {
    let cause = cause.into();
    let message = format!("Model inference failed: {}", telemetry::chain(cause.as_ref()));
    BackendError::new(Verdict::Unusable, "model_error", message).because(cause)
}

/// Runs the model. An operator that panics fails the batch, not the worker.
fn compute(plan: &Arc<TypedRunnableModel>, name: &str, batch: &Batch) -> Result<Tensor, BackendError> {
    match catch_unwind(AssertUnwindSafe(|| run(plan, name, batch))) {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(failed(error)),
        Err(_) => Err(failed("the model panicked")),
    }
}

fn run(plan: &Arc<TypedRunnableModel>, name: &str, batch: &Batch) -> TractResult<Tensor> {
    let inputs = batch.inputs.iter().map(|input| Ok(convert::to_tract(input)?.into()));
    let inputs = inputs.collect::<TractResult<TVec<_>>>()?;
    let mut outputs = plan.run(inputs)?;
    convert::from_tract(name, &outputs.remove(0))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::path::Path;

    use super::*;

    fn model(folder: &str, name: &str) -> Model {
        Model::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder), name).unwrap()
    }

    async fn predict(model: &Model, data: Value) -> Tensor {
        let rows = model.read_rows(&data).unwrap();
        Onnx::open(model).unwrap().predict(model.concatenate(std::iter::once(&rows))).await.unwrap()
    }

    #[tokio::test]
    async fn the_iris_model_classifies_two_flowers() {
        let model = model("compose/models", "iris");
        let answer = predict(&model, serde_json::json!([[5.1, 3.5, 1.4, 0.2], [6.3, 3.3, 6.0, 2.5]])).await;
        let answer = model.check_output(2, answer).unwrap();
        assert_eq!(model.render(&answer, 0..1, usize::MAX).unwrap().class_name.as_deref(), Some("setosa"));
        assert_eq!(model.render(&answer, 1..2, usize::MAX).unwrap().class_name.as_deref(), Some("virginica"));
    }

    #[test]
    fn a_batch_is_expected_to_take_what_its_rows_took_of_late() {
        let pace = Pace::unknown();
        assert!(pace.expects(1) > LONGEST_STEP);

        pace.measure(1_000, || std::thread::sleep(Duration::from_millis(2)));
        assert!((Duration::from_millis(2)..Duration::from_secs(2)).contains(&pace.expects(1_000)));

        (0..200).for_each(|_| pace.measure(1_000, || ()));
        assert!(pace.expects(1_000) < Duration::from_millis(1), "{:?}", pace.expects(1_000));
    }

    #[tokio::test]
    async fn a_model_of_another_shape_needs_no_other_code() {
        let model = model("tests/models", "toy");
        let answer = predict(&model, model.sample.clone()).await;
        let answer = model.check_output(1, answer).unwrap();
        assert_eq!(model.render(&answer, 0..1, usize::MAX).unwrap().json, r#"{"prediction":[11.5]}"#);
    }
}
