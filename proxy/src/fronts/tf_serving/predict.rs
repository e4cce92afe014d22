//! `POST /v1/models/{name}:predict` and `:classify`: rows, columns or examples in, the same form out.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use serde_json::{Value, json};
use tepal_shared::{
    job::{Job, JobId, JobStatus},
    json::JsonRef,
};

use super::{
    inference::{self, Inference, Reply},
    request::{Form, PredictRequest},
    response,
    target::{Target, Verb},
};
use crate::{
    edge::access::Caller,
    error::{ApiError, CallError},
    http::{budget::Meter, json},
    jobs::{models::Served, refused::Refused},
    state::App,
};

const REGRESS: &str = "Regressions are not supported: no signature of a model is one; use :predict";
const EXPLAIN: &str = "Explanations are not supported; use :predict";

/// Does with the model what the path says.
pub(super) async fn call(
    State(app): State<Arc<App>>,
    caller: Caller,
    target: Target,
    request: Request,
) -> Result<Response, ApiError> {
    let verb = match target.verb() {
        Ok(verb) => verb,
        Err(wrong) => return Ok(wrong.into_response()),
    };
    match verb {
        Verb::Regress => Err(CallError::NotSupported(REGRESS).into()),
        Verb::Explain => Err(CallError::NotSupported(EXPLAIN).into()),
        Verb::Predict | Verb::Classify => {
            let state = Arc::clone(&app);
            let outcome = run(app, caller, &target, verb, request).await;
            outcome.map_err(|refused| refused.counted(&state.metrics))
        }
    }
}

async fn run(
    app: Arc<App>,
    caller: Caller,
    target: &Target,
    verb: Verb,
    request: Request,
) -> Result<Response, Refused> {
    let (head, body) = request.into_parts();
    let model = inference::model_of(&app, &caller, &target.choice)?;
    let of_model = |error| Refused::of(model.name, error);
    target.check_label(&model).map_err(of_model)?;
    let served = Arc::clone(&model);
    let parse = move |bytes: &[u8], meter: &mut Meter| parse(bytes, verb, &served, meter);
    let (parsed, memory) = inference::read(&app, &head.headers, body, parse).await.map_err(of_model)?;
    let PredictRequest { submission, form } = parsed;
    let reply = Outputs { model, form };
    Inference { app, caller, head, submission, memory }.answer(reply).await
}

fn parse(
    body: &[u8],
    verb: Verb,
    model: &Arc<Served>,
    meter: &mut Meter,
) -> Result<PredictRequest, ApiError> {
    let value = json::parse(body, meter)?;
    PredictRequest::read(JsonRef::from(&value), verb, model).map_err(ApiError::Invalid)
}

/// How to answer.
struct Outputs {
    model: Arc<Served>,
    form: Form,
}

impl Reply for Outputs {
    async fn completed(self, app: &App, job: &Job) -> Result<Response, ApiError> {
        response::answer(app, self.form, &self.model, job).await
    }

    fn accepted(&self, id: JobId, status: JobStatus) -> Value {
        json!({
            "model_name": self.model.name.as_str(),
            "model_version": self.model.description.version,
            "job_id": id.to_string(),
            "status": status.as_str(),
        })
    }
}
