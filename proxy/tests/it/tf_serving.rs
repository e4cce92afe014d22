//! TensorFlow Serving's REST API.
//!
//! | module | shows |
//! | --- | --- |
//! | `predict` | rows and columns of the reference model, waiting, each kind of mistake |
//! | `mixed` | several inputs and outputs of several types, classes |
//! | `status` | states, metadata, versions and labels, what is not supported, API keys |

mod mixed;
mod predict;
mod status;

use serde_json::Value;
use tepal_shared::tensor::Tensor;
use tepal_tests::http::Answer;

use crate::{
    gateway::Gateway,
    v2::{complete, next_job, send},
};

const PREDICT: &str = "/v1/models/iris:predict";

/// Sends a request while the test plays the worker, whose answer is these tensors. Returns the answer and the input of the job.
async fn predict(gateway: &Gateway, path: &str, body: &Value, outputs: &[Tensor]) -> (Answer, Vec<u8>) {
    let worker = async {
        let job = next_job(gateway).await;
        complete(gateway, &job.attempt.claim, outputs).await;
        job.input
    };
    tokio::join!(send(gateway, path, &[], body.to_string()), worker)
}
