//! The message of an inference.

use std::sync::Arc;

use tepal_proto::open_inference::{ModelInferRequest, model_infer_request::InferRequestedOutputTensor};
use tepal_shared::{
    model::InputError,
    tensor::{open_inference::message, pointer::Pointer},
};

use super::{InferRequest, check_id, parameters::Reader};
use crate::{
    error::{MOST_MISTAKES, Mistake},
    jobs::models::Served,
};

const PARAMETERS: &str = "parameters";

/// Reads a request for this model.
pub(super) fn read(request: ModelInferRequest, model: &Arc<Served>) -> Result<InferRequest, Vec<Mistake>> {
    let ModelInferRequest { id, parameters, inputs, outputs, raw_input_contents, .. } = request;
    let mut mistakes = Vec::new();
    mistakes.extend(check_id(&id).err());
    let at = Pointer::ROOT.member(PARAMETERS);
    let (priority, timeout) = Reader { parameters: &parameters, at, mistakes: &mut mistakes }.limits();
    let outputs = read_outputs(outputs, model, &mut mistakes);
    let at = Pointer::ROOT.member("inputs");
    let given = message::read(inputs, raw_input_contents, at);
    let tensors = match given.and_then(|given| model.description.check_tensors(given, at)) {
        Ok(tensors) if mistakes.is_empty() => tensors,
        Ok(_) => return Err(mistakes),
        Err(errors) => {
            mistakes.extend(errors.into_iter().map(InputError::into));
            mistakes.truncate(MOST_MISTAKES);
            return Err(mistakes);
        }
    };
    let id = Some(id).filter(|id| !id.is_empty());
    Ok(InferRequest { id, tensors, outputs, encoding: Default::default(), priority, timeout })
}

/// The names of the outputs.
fn read_outputs(
    outputs: Vec<InferRequestedOutputTensor>,
    model: &Served,
    mistakes: &mut Vec<Mistake>,
) -> Vec<String> {
    let at = Pointer::ROOT.member("outputs");
    for (index, output) in outputs.iter().enumerate() {
        if mistakes.len() >= MOST_MISTAKES {
            break;
        }
        let at = at.element(index);
        Reader { parameters: &output.parameters, at: at.member(PARAMETERS), mistakes }.check_output();
    }
    mistakes.truncate(MOST_MISTAKES);
    let names: Vec<_> = outputs.into_iter().map(|output| output.name).collect();
    if let Err(errors) = model.description.check_output_names(&names, at) {
        mistakes.extend(errors.into_iter().map(InputError::into));
        mistakes.truncate(MOST_MISTAKES);
    }
    names
}

/// Entry points for the fuzz targets.
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing {
    use std::sync::Arc;

    use super::super::{message, weight};
    use crate::{
        error::ApiError,
        http::budget::{Budget, Meter},
        jobs::{models::Served, submission::Submission},
    };

    /// The job of the message of an inference.
    pub(crate) fn grpc_infer(bytes: &[u8], model: &Arc<Served>) -> Result<Submission, ApiError> {
        weight::pay(bytes, &mut Meter::on(Budget::new(0, 1 << 40).share()))?;
        let request = super::read(message::decoded(bytes)?, model).map_err(ApiError::Invalid)?;
        Ok(request.parsed(model).submission)
    }
}
