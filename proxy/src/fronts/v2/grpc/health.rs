//! Whether the server and its models are live and ready.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    response::Response,
};
use tepal_proto::{
    grpc_health::{HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus},
    open_inference::{
        ModelReadyRequest, ModelReadyResponse, ServerLiveRequest, ServerLiveResponse, ServerReadyRequest,
        ServerReadyResponse,
    },
};

use super::{Named, is_ready, message};
use crate::{edge::access::Caller, error::ApiError, state::App};

/// The services that can be asked about; the empty name is the whole server.
const SERVICES: [&str; 3] = ["", "inference.GRPCInferenceService", "grpc.health.v1.Health"];

/// The process serves requests.
pub(super) async fn live(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let ServerLiveRequest {} = message::small(request, &app.bodies).await?;
    Ok(message::answer(&ServerLiveResponse { live: true }))
}

/// Jobs can be accepted.
pub(super) async fn ready(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let ServerReadyRequest {} = message::small(request, &app.bodies).await?;
    Ok(message::answer(&ServerReadyResponse { ready: is_ready(&app) }))
}

/// A call of the model may be sent.
pub(super) async fn model_ready(
    State(app): State<Arc<App>>,
    caller: Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let ModelReadyRequest { name, version } = message::small(request, &app.bodies).await?;
    let ready = match Named::of(name, version).model(&app.models.registry(), &caller) {
        Ok(model) => app.is_model_ready(model.name.as_str()),
        // As Triton answers. Its clients ask again until the model is there, and take an error as final.
        Err(
            ApiError::ModelNotFound { .. } | ApiError::VersionNotFound { .. } | ApiError::ModelUnknownYet,
        ) => false,
        Err(error) => return Err(error),
    };
    Ok(message::answer(&ModelReadyResponse { ready }))
}

/// The health check that orchestrators and balancers know.
pub(super) async fn check(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let HealthCheckRequest { service } = message::small(request, &app.bodies).await?;
    if !SERVICES.contains(&service.as_str()) {
        return Err(ApiError::ModelNotFound { known: "inference.GRPCInferenceService".to_owned() });
    }
    let status = if is_ready(&app) { ServingStatus::Serving } else { ServingStatus::NotServing };
    Ok(message::answer(&HealthCheckResponse { status: status.into() }))
}
