//! The calls of the gRPC API, and when each is answered.

use std::future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::Duration;

use tepal_proto::tensorflow::serving::model_service_server::{ModelService, ModelServiceServer};
use tepal_proto::tensorflow::serving::prediction_service_server::{
    PredictionService, PredictionServiceServer,
};
use tepal_proto::tensorflow::serving::{
    GetModelMetadataRequest, GetModelMetadataResponse, GetModelStatusRequest, GetModelStatusResponse,
    ModelSpec, PredictRequest, PredictResponse,
};
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::sleep;
use tonic::{Code, Request, Response, Status};

use super::behaviour::{Behaviour, Script};
use super::calls::{CallLog, CallOutcome, RunningCall};
use super::reply::Answer;
use super::request::Rows;
use super::spec::ServerSpec;
use super::{describe, request};

/// An error text longer than this is cut.
const TEXT_LIMIT: usize = 1024;

/// What the calls and the server's handle share.
#[derive(Debug)]
pub(super) struct Shared {
    spec: RwLock<Arc<ServerSpec>>,
    script: Mutex<Script>,
    available: AtomicBool,
    handlers: Semaphore,
    /// Number of GetModelStatus calls.
    pub(super) probes: AtomicUsize,
    pub(super) log: CallLog,
    /// Notified when the server must crash.
    pub(super) crash: Notify,
}

/// All services of the server. Clones share everything.
#[derive(Clone)]
pub(super) struct Service {
    shared: Arc<Shared>,
}

impl Shared {
    pub(super) fn new(spec: ServerSpec) -> Self {
        Self {
            script: Mutex::new(Script::new()),
            available: AtomicBool::new(true),
            handlers: Semaphore::new(spec.handlers),
            probes: AtomicUsize::new(0),
            log: CallLog::default(),
            crash: Notify::new(),
            spec: RwLock::new(Arc::new(spec)),
        }
    }

    pub(super) fn spec(&self) -> Arc<ServerSpec> {
        Arc::clone(&self.spec.read().expect("no panic while the specification is held"))
    }

    pub(super) fn set_spec(&self, spec: ServerSpec) {
        *self.spec.write().expect("no panic while the specification is held") = Arc::new(spec);
    }

    /// Waits for a free thread, as a server with few threads does.
    pub(super) async fn handler(&self) -> SemaphorePermit<'_> {
        self.handlers.acquire().await.expect("the semaphore is never closed")
    }

    pub(super) fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().expect("no panic while the script is held")
    }

    pub(super) fn set_available(&self, available: bool) {
        self.available.store(available, Ordering::Relaxed);
    }

    pub(super) fn available(&self) -> bool {
        self.available.load(Ordering::Relaxed)
    }

    /// Whether a request's model can be used now.
    fn check_model(&self, model: Option<&ModelSpec>) -> Result<(), Status> {
        request::check_model(&self.spec(), model, self.available())
    }

    /// A call whose rows, or what is wrong with them, are known.
    pub(super) async fn run(
        &self,
        spec: &ServerSpec,
        rows: Result<Rows, Status>,
        call: &RunningCall,
    ) -> Result<Answer, Status> {
        if call.running > spec.max_concurrent_calls {
            return Err(Status::new(spec.refusal, "too many concurrent calls"));
        }
        let behaviour = self.script().take();
        match &behaviour {
            Behaviour::Status(code, text) => return Err(Status::new(*code, text)),
            Behaviour::Hang => future::pending().await,
            Behaviour::Delay(delay) => pause(*delay).await,
            _ => {}
        }
        let rows = rows?;
        refuse_size(&behaviour, &rows)?;
        if let Behaviour::CrashOnRowsOver(limit) = behaviour
            && refuse_rows_over(limit, Code::Unknown, spec, &rows).is_err()
        {
            self.crash.notify_one();
            future::pending().await
        }
        pause(spec.cost(rows.count)).await;
        if let Behaviour::FailRowsOver(limit, code) = behaviour {
            refuse_rows_over(limit, code, spec, &rows)?;
        }
        Ok(Answer::new(spec, &rows, &behaviour))
    }
}

impl Service {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// The real server accepts requests of any size by default; tonic would stop at 4 MiB.
    pub(super) fn into_prediction_service(self) -> PredictionServiceServer<Self> {
        let limit = self.shared.spec().max_request_bytes;
        PredictionServiceServer::new(self).max_decoding_message_size(limit)
    }

    pub(super) fn into_model_service(self) -> ModelServiceServer<Self> {
        ModelServiceServer::new(self)
    }
}

#[tonic::async_trait]
impl PredictionService for Service {
    async fn predict(&self, request: Request<PredictRequest>) -> Result<Response<PredictResponse>, Status> {
        let (shared, request) = (&self.shared, request.into_inner());
        let _handler = shared.handler().await;
        let spec = shared.spec();
        let rows = shared
            .check_model(request.model_spec.as_ref())
            .and_then(|()| request::read_rows(&spec, &request));
        let call = shared.log.start(rows.as_ref().ok());
        let result = shared.run(&spec, rows, &call).await;
        call.end(ended(&result));
        let response = |answer: Answer| PredictResponse {
            outputs: answer.into_tensorflow(spec.answer_style),
            model_spec: Some(describe::model_spec(&spec, request::SIGNATURE)),
        };
        result.map(|answer| Response::new(response(answer))).map_err(cut)
    }

    async fn get_model_metadata(
        &self,
        request: Request<GetModelMetadataRequest>,
    ) -> Result<Response<GetModelMetadataResponse>, Status> {
        let (shared, request) = (&self.shared, request.into_inner());
        let _handler = shared.handler().await;
        if !shared.spec().with_metadata {
            return Err(Status::unimplemented(""));
        }
        shared.check_model(request.model_spec.as_ref()).map_err(cut)?;
        describe::metadata(&shared.spec(), &request.metadata_field).map(Response::new).map_err(cut)
    }
}

#[tonic::async_trait]
impl ModelService for Service {
    async fn get_model_status(
        &self,
        request: Request<GetModelStatusRequest>,
    ) -> Result<Response<GetModelStatusResponse>, Status> {
        let (shared, request) = (&self.shared, request.into_inner());
        shared.probes.fetch_add(1, Ordering::Relaxed);
        let _handler = shared.handler().await;
        if !shared.spec().with_status {
            return Err(Status::unimplemented(""));
        }
        let status = describe::status(&shared.spec(), request.model_spec.as_ref(), shared.available());
        status.map(Response::new).map_err(cut)
    }
}

/// How a call ended.
pub(super) fn ended(result: &Result<Answer, Status>) -> CallOutcome {
    result.as_ref().map_or_else(|status| CallOutcome::Failed(status.code()), |_| CallOutcome::Answered)
}

/// A timer is never shorter than a millisecond, so none is set for no time.
async fn pause(time: Duration) {
    if !time.is_zero() {
        sleep(time).await;
    }
}

fn refuse_rows_over(limit: f32, code: Code, spec: &ServerSpec, rows: &Rows) -> Result<(), Status> {
    let first_values = rows.values.iter().step_by(spec.row_len());
    match first_values.copied().find(|first| *first > limit) {
        Some(first) => Err(Status::new(code, format!("a row starts with {first}, which is over {limit}"))),
        None => Ok(()),
    }
}

fn refuse_size(behaviour: &Behaviour, rows: &Rows) -> Result<(), Status> {
    match behaviour {
        Behaviour::FailCallsOver(limit, code, text) if rows.count > *limit => Err(Status::new(*code, text)),
        Behaviour::FailBytesOver(limit) if rows.bytes > *limit => {
            let text = format!("Received message larger than max ({} vs. {limit})", rows.bytes);
            Err(Status::resource_exhausted(text))
        }
        _ => Ok(()),
    }
}

/// Cuts an error text as the real server does.
fn cut(status: Status) -> Status {
    match status.message().char_indices().nth(TEXT_LIMIT) {
        Some((end, _)) => Status::new(status.code(), format!("{}...TRUNCATED", &status.message()[..end])),
        None => status,
    }
}
