//! The calls of the Open Inference Protocol, as Triton answers them. The specification makes it answer as MLServer does.

mod reply;
mod request;

use std::sync::atomic::Ordering;
use std::time::Duration;

use tepal_proto::open_inference::grpc_inference_service_server::{
    GrpcInferenceService, GrpcInferenceServiceServer,
};
use tepal_proto::open_inference::{
    ModelConfig, ModelConfigRequest, ModelConfigResponse, ModelInferRequest, ModelInferResponse,
    ModelMetadataRequest, ModelMetadataResponse, ModelReadyRequest, ModelReadyResponse, ServerLiveRequest,
    ServerLiveResponse, ServerMetadataRequest, ServerMetadataResponse, ServerReadyRequest,
    ServerReadyResponse,
};
use tonic::{Request, Response, Status};

use super::request::Rows;
use super::service::{Service, Shared, ended};

impl Service {
    /// Requests of any size are accepted, unless the specification limits them.
    pub(super) fn into_open_inference(self) -> GrpcInferenceServiceServer<Self> {
        let limit = self.shared().spec().max_request_bytes;
        GrpcInferenceServiceServer::new(self).max_decoding_message_size(limit)
    }
}

impl Shared {
    /// Whether a request's model can be used now.
    fn check_served(&self, name: &str, version: &str) -> Result<(), Status> {
        let spec = self.spec();
        if name != spec.model {
            return Err(Status::not_found(format!("Request for unknown model: '{name}' is not found")));
        }
        if !["", &spec.version.to_string()].contains(&version) {
            let text = format!("Request for unknown model: '{name}' version {version} is not found");
            return Err(Status::not_found(text));
        }
        if !self.available() {
            return Err(Status::unavailable(format!("Request for unknown model: '{name}' is not ready")));
        }
        Ok(())
    }

    fn read_rows(&self, request: &Request<ModelInferRequest>) -> Result<Rows, Status> {
        let (spec, message) = (self.spec(), request.get_ref());
        self.check_served(&message.model_name, &message.model_version)?;
        let rows = request::read_rows(&spec, message)?;
        Ok(Rows { deadline: deadline(request), ..rows })
    }
}

/// The time that the client allows for the call (gRPC over HTTP/2, Timeout).
fn deadline<T>(request: &Request<T>) -> Option<Duration> {
    let text = request.metadata().get("grpc-timeout")?.to_str().ok()?;
    let (number, unit) = text.split_at(text.len() - 1);
    let number: u64 = number.parse().ok()?;
    match unit {
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[tonic::async_trait]
impl GrpcInferenceService for Service {
    async fn server_live(
        &self,
        _: Request<ServerLiveRequest>,
    ) -> Result<Response<ServerLiveResponse>, Status> {
        Ok(Response::new(ServerLiveResponse { live: true }))
    }

    async fn server_ready(
        &self,
        _: Request<ServerReadyRequest>,
    ) -> Result<Response<ServerReadyResponse>, Status> {
        Ok(Response::new(ServerReadyResponse { ready: self.shared().spec().open_inference.is_ready }))
    }

    async fn model_ready(
        &self,
        request: Request<ModelReadyRequest>,
    ) -> Result<Response<ModelReadyResponse>, Status> {
        let (shared, request) = (self.shared(), request.into_inner());
        shared.probes.fetch_add(1, Ordering::Relaxed);
        let _handler = shared.handler().await;
        let is_served = shared.check_served(&request.name, &request.version);
        match (is_served, shared.spec().open_inference.unknown_model) {
            (Err(status), Some(code)) if status.code() == tonic::Code::NotFound => {
                Err(Status::new(code, "Unexpected error"))
            }
            (is_served, _) => Ok(Response::new(ModelReadyResponse { ready: is_served.is_ok() })),
        }
    }

    async fn server_metadata(
        &self,
        _: Request<ServerMetadataRequest>,
    ) -> Result<Response<ServerMetadataResponse>, Status> {
        Ok(Response::new(ServerMetadataResponse { name: "fake".to_owned(), ..Default::default() }))
    }

    async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> Result<Response<ModelMetadataResponse>, Status> {
        let (shared, request) = (self.shared(), request.into_inner());
        let _handler = shared.handler().await;
        let spec = shared.spec();
        if !spec.with_metadata {
            return Err(Status::unimplemented(""));
        }
        shared.check_served(&request.name, &request.version)?;
        Ok(Response::new(reply::metadata(&spec)))
    }

    async fn model_infer(
        &self,
        request: Request<ModelInferRequest>,
    ) -> Result<Response<ModelInferResponse>, Status> {
        let shared = self.shared();
        let _handler = shared.handler().await;
        let (spec, rows) = (shared.spec(), shared.read_rows(&request));
        let id = request.into_inner().id;
        let call = shared.log.start(rows.as_ref().ok());
        let result = shared.run(&spec, rows, &call).await;
        call.end(ended(&result));
        result.map(|answer| Response::new(reply::response(&spec, answer, id)))
    }

    async fn model_config(
        &self,
        request: Request<ModelConfigRequest>,
    ) -> Result<Response<ModelConfigResponse>, Status> {
        let (shared, request) = (self.shared(), request.into_inner());
        let _handler = shared.handler().await;
        let spec = shared.spec();
        let Some(max_batch_size) = spec.open_inference.max_batch_size else {
            return Err(Status::unimplemented("Method not found!"));
        };
        shared.check_served(&request.name, &request.version)?;
        let config = ModelConfig { name: spec.model.clone(), max_batch_size, ..ModelConfig::default() };
        Ok(Response::new(ModelConfigResponse { config: Some(config) }))
    }
}
