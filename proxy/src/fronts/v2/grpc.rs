//! The Open Inference Protocol over gRPC. Messages are read and written here and not by `tonic`'s server: so the memory of each is
//! reserved while it arrives, large ones are converted away from the threads that serve others, and large results are never copied.

mod calls;
mod deadline;
mod health;
mod infer;
mod message;
mod metadata;
mod request;
mod response;
mod weight;

use std::sync::Arc;

use axum::Router;

use self::calls::Calls;
use super::{
    health::is_ready,
    inference::JOB_ID,
    metadata as facts,
    named::Named,
    parameters,
    request::{InferRequest, Parsed, check_id},
    unsupported::{LOADING, SHARED_MEMORY, STATISTICS, STREAMING},
};
use crate::{
    edge::{access::Scope, rules::Rules},
    state::App,
};

/// Entry points for the fuzz targets.
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing {
    pub(crate) use super::request::fuzzing::grpc_infer;
}

/// The calls of Triton's service that are not served, and why.
const NOT_SUPPORTED: [(&str, &str); 14] = [
    ("/inference.GRPCInferenceService/ModelStreamInfer", STREAMING),
    ("/inference.GRPCInferenceService/ModelStatistics", STATISTICS),
    ("/inference.GRPCInferenceService/RepositoryIndex", "The models are listed by POST /v2/repository/index"),
    ("/inference.GRPCInferenceService/RepositoryModelLoad", LOADING),
    ("/inference.GRPCInferenceService/RepositoryModelUnload", LOADING),
    ("/inference.GRPCInferenceService/SystemSharedMemoryStatus", SHARED_MEMORY),
    ("/inference.GRPCInferenceService/SystemSharedMemoryRegister", SHARED_MEMORY),
    ("/inference.GRPCInferenceService/SystemSharedMemoryUnregister", SHARED_MEMORY),
    ("/inference.GRPCInferenceService/CudaSharedMemoryStatus", SHARED_MEMORY),
    ("/inference.GRPCInferenceService/CudaSharedMemoryRegister", SHARED_MEMORY),
    ("/inference.GRPCInferenceService/CudaSharedMemoryUnregister", SHARED_MEMORY),
    ("/inference.GRPCInferenceService/TraceSetting", "Traces are set up by the settings of the service"),
    ("/inference.GRPCInferenceService/LogSettings", "The log is set up by the settings of the service"),
    ("/grpc.health.v1.Health/Watch", "Ask with Check"),
];

/// Every call, with the scopes that it requires.
pub(in crate::fronts) fn calls() -> (Router<Arc<App>>, Rules) {
    let calls = Calls::default()
        .on("/inference.GRPCInferenceService/ServerLive", &[], health::live)
        .on("/inference.GRPCInferenceService/ServerReady", &[], health::ready)
        .on("/inference.GRPCInferenceService/ModelReady", &[Scope::Read], health::model_ready)
        .on("/inference.GRPCInferenceService/ServerMetadata", &[Scope::Read], metadata::server)
        .on("/inference.GRPCInferenceService/ModelMetadata", &[Scope::Read], metadata::model)
        .on("/inference.GRPCInferenceService/ModelConfig", &[Scope::Read], metadata::config)
        .on("/inference.GRPCInferenceService/ModelInfer", &[Scope::Submit, Scope::Read], infer::infer)
        .on("/grpc.health.v1.Health/Check", &[], health::check);
    NOT_SUPPORTED.into_iter().fold(calls, |calls, (path, why)| calls.not_supported(path, why)).done()
}
