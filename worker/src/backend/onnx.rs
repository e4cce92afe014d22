//! Runs an ONNX model in this process with tract.

mod convert;
mod missing;
mod plans;
mod rows;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tepal_shared::{
    model::Model,
    tensor::{Batch, Tensor},
};
use tract_onnx::prelude::{DatumType, TractError};

use self::plans::{OutputFact, Plans};
use super::{
    Backend, BackendError, ModelCall, OpenError,
    compute::{Calls, Compute},
    pace::{LONGEST_STEP, Pace},
};

/// A call of rows that run one by one takes about so long at most, so that it does not delay others.
const LONGEST_CALL: Duration = Duration::from_millis(50);

/// A loaded model.
pub(super) struct Onnx {
    plans: Arc<Plans>,
    /// Names of the outputs, in the order of the description.
    outputs: Arc<[String]>,
    metadata: Value,
    pace: Arc<Pace>,
    /// Where its long calls compute.
    calls: Calls,
}

impl Onnx {
    /// Loads the model. Its long calls compute beside those of the others.
    pub(super) fn open(model: &Model, compute: &Arc<Compute>) -> Result<Self, OpenError> {
        let path = model.onnx_file.as_ref().ok_or_else(|| OpenError::NoOnnxFile(model.name.clone()))?;
        // The engine panics on some damaged files.
        let loaded = catch_unwind(AssertUnwindSafe(|| Plans::load(path, model)));
        let panicked = |_| Err(TractError::msg("the engine panicked; the file may be damaged"));
        let plans = loaded
            .unwrap_or_else(panicked)
            .map_err(|error| OpenError::Onnx { path: path.display().to_string(), source: error.into() })?;
        let outputs = model.outputs().map(|output| output.name.clone()).collect();
        let metadata = metadata(&plans, model);
        let (pace, calls) = (Arc::new(Pace::unknown()), compute.calls());
        Ok(Self { plans: Arc::new(plans), outputs, metadata, pace, calls })
    }
}

/// The description, with the outputs of the loaded model as far as a plan knows them. The model got its inputs from the description.
fn metadata(plans: &Plans, model: &Model) -> Value {
    let mut metadata = model.metadata();
    let outputs = &mut metadata["metadata"]["signature_def"][&model.signature]["outputs"];
    for (output, OutputFact { datum_type, dims }) in model.outputs().zip(plans.outputs(model)) {
        let dims: Vec<_> = dims.into_iter().map(|size| json!({"size": size})).collect();
        outputs[&output.name] = json!({"dtype": dtype_name(datum_type), "tensor_shape": {"dim": dims}});
    }
    metadata
}

/// TensorFlow's name of the type, or tract's if there is none.
fn dtype_name(datum_type: DatumType) -> String {
    convert::datatype(datum_type)
        .map_or_else(|| format!("{datum_type:?}"), |datatype| datatype.tensorflow_name().to_owned())
}

impl Backend for Onnx {
    fn name(&self) -> &'static str {
        "onnx"
    }

    fn predict(&self, call: ModelCall) -> BoxFuture<'_, Result<Vec<Tensor>, BackendError>> {
        let batch = call.batch;
        let (plans, names, pace) =
            (Arc::clone(&self.plans), Arc::clone(&self.outputs), Arc::clone(&self.pace));
        // Rows of other shapes take other times, and a new shape is optimised first.
        let expected = if plans.is_one() { pace.expects(batch.rows) } else { Duration::MAX };
        let work = move || compute(&plans, &names, &batch, &pace);
        Box::pin(async move {
            if expected <= LONGEST_STEP { work() } else { self.calls.run(expected, work).await? }
        })
    }

    fn most_rows(&self) -> usize {
        if self.plans.is_one() { usize::MAX } else { self.pace.rows_within(LONGEST_CALL) }
    }

    fn probe(&self) -> BoxFuture<'_, Result<Value, BackendError>> {
        let metadata = self.metadata.clone();
        Box::pin(async move { Ok(metadata) })
    }
}

/// Runs the model. An operator that panics fails the batch, not the worker.
fn compute(plans: &Plans, names: &[String], batch: &Batch, pace: &Pace) -> Result<Vec<Tensor>, BackendError> {
    let work = || {
        // The time to make a plan is no time of a row.
        let plan = plans.plan(batch)?;
        pace.measure(batch.rows, || plans.run(&plan, names, batch))
    };
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(BackendError::inference(error)),
        Err(_) => Err(BackendError::inference("the model panicked")),
    }
}

/// Tensors to the engine and back.
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing {
    use tepal_shared::tensor::Tensor;
    use tract_onnx::prelude::TractResult;

    use super::convert;

    pub(crate) fn round_trip(tensor: &Tensor) -> TractResult<Tensor> {
        convert::from_tract(&tensor.name, &convert::to_tract(tensor)?)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
