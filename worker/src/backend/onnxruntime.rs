//! Runs an ONNX model in this process with ONNX Runtime. This file and its folder are the only ones that use the crate `ort`,
//! whose interface still changes.

mod convert;
mod library;
mod places;
mod signature;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
    time::Duration,
};

use futures_util::future::BoxFuture;
use ort::session::{RunOptions, Session};
use serde_json::Value;
use tepal_shared::{
    model::Model,
    tensor::{Batch, Tensor},
};
use tokio::sync::Mutex;
use tracing::debug;

pub use self::library::LibraryError;
use self::{convert::ConvertError, library::Library};
use super::{
    Backend, BackendError, Cause, ModelCall, OpenError, Verdict,
    compute::{Calls, Compute},
    pace::{LONGEST_STEP, Pace},
    settings::OnnxRuntimeSettings,
};

/// A loaded model.
pub(super) struct OnnxRuntime {
    /// The crate calls concurrent runs of a session unsound. One run uses all threads of the pool.
    session: Arc<Mutex<Session>>,
    /// Names of the outputs, in the order of the description.
    outputs: Arc<[String]>,
    metadata: Value,
    pace: Arc<Pace>,
    /// Whether all rows have one shape, so that they take about the same time.
    is_fixed: bool,
    library: Library,
    /// Where its long calls compute.
    calls: Calls,
}

impl OnnxRuntime {
    pub(super) fn open(
        settings: &OnnxRuntimeSettings,
        model: &Model,
        compute: &Arc<Compute>,
    ) -> Result<Self, OpenError> {
        let path = model.onnx_file.as_ref().ok_or_else(|| OpenError::NoOnnxFile(model.name.clone()))?;
        let unloadable = |source: Cause| OpenError::Session { path: path.display().to_string(), source };
        let library = library::load(settings).map_err(OpenError::OnnxRuntime)?;
        let session = load(&library, path).map_err(|error| unloadable(error.into()))?;
        signature::check(&session, model).map_err(|error| unloadable(error.into()))?;
        Ok(Self {
            metadata: signature::metadata(&session, model),
            session: Arc::new(Mutex::new(session)),
            outputs: model.outputs().map(|output| output.name.clone()).collect(),
            pace: Arc::new(Pace::unknown()),
            is_fixed: !model.inputs.iter().any(|input| input.shape.is_variable()),
            library,
            calls: compute.calls(),
        })
    }
}

fn load(library: &Library, path: &Path) -> ort::Result<Session> {
    Session::builder(&library.environment)?.commit_from_file(path)
}

impl Backend for OnnxRuntime {
    fn name(&self) -> &'static str {
        "onnxruntime"
    }

    fn predict(&self, call: ModelCall) -> BoxFuture<'_, Result<Vec<Tensor>, BackendError>> {
        let batch = call.batch;
        let (names, pace) = (Arc::clone(&self.outputs), Arc::clone(&self.pace));
        Box::pin(async move {
            let mut session = Arc::clone(&self.session).lock_owned().await;
            let options = Arc::new(RunOptions::new().map_err(BackendError::inference)?);
            let _abort = Abort(Arc::clone(&options));
            let expected = if self.is_fixed { pace.expects(batch.rows) } else { Duration::MAX };
            let mut work =
                move || pace.measure(batch.rows, || compute(&mut session, &options, &names, &batch));
            if expected <= LONGEST_STEP { work() } else { self.calls.run(expected, work).await? }
        })
    }

    fn probe(&self) -> BoxFuture<'_, Result<Value, BackendError>> {
        let metadata = self.metadata.clone();
        Box::pin(async move { Ok(metadata) })
    }

    fn library(&self) -> Option<String> {
        Some(format!("ONNX Runtime {} ({})", self.library.version, self.library.path.display()))
    }
}

/// Aborts a run when its call is dropped. After the end of the run it has no effect.
struct Abort(Arc<RunOptions>);

impl Drop for Abort {
    fn drop(&mut self) {
        if let Err(error) = self.0.terminate() {
            debug!(action = "model_call_not_aborted", %error);
        }
    }
}

/// Runs the model. The library's binding panics where it is sure of something. That fails the batch, not the worker.
fn compute(
    session: &mut Session,
    options: &RunOptions,
    names: &[String],
    batch: &Batch,
) -> Result<Vec<Tensor>, BackendError> {
    match catch_unwind(AssertUnwindSafe(|| run(session, options, names, batch))) {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(RunError::Runtime(error))) => Err(failure(error)),
        Ok(Err(RunError::Convert(error))) => Err(BackendError::inference(error)),
        Err(_) => Err(BackendError::inference("the model panicked")),
    }
}

#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error(transparent)]
    Runtime(#[from] ort::Error),
    #[error(transparent)]
    Convert(#[from] ConvertError),
}

/// Computes all outputs of the model, also those that are not described: a run that computes some of them cannot be aborted.
fn run(
    session: &mut Session,
    options: &RunOptions,
    names: &[String],
    batch: &Batch,
) -> Result<Vec<Tensor>, RunError> {
    let input = |input: &Tensor| Ok((input.name.clone(), convert::to_value(input)?));
    let inputs = batch.inputs.iter().map(input).collect::<Result<Vec<_>, ConvertError>>()?;
    let outputs = session.run_with_options(inputs, options)?;
    let output = |name: &String| {
        let value = outputs.get(name).ok_or_else(|| ConvertError::Missing { name: name.clone() })?;
        convert::from_value(name, value)
    };
    Ok(names.iter().map(output).collect::<Result<_, _>>()?)
}

/// A smaller batch needs less memory. Any other failure is the input's: the same one fails again.
fn failure(error: ort::Error) -> BackendError {
    let is_memory = ["Failed to allocate memory", "bad allocation", "bad_alloc"];
    if is_memory.iter().any(|text| error.message().contains(text)) {
        let message = format!("The model needs more memory than there is: {error}");
        return BackendError::new(Verdict::Overloaded, "model_overloaded", message).because(error);
    }
    BackendError::inference(error)
}

#[cfg(test)]
mod tests;
