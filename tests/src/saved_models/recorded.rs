//! A server that answers as TensorFlow Serving does with the SavedModels: each row gets the outputs that TensorFlow computed for
//! it. A row that is not recorded is refused, as a file that is not an image is.

mod model;
mod proto;
mod row;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tepal_proto::tensorflow::serving::model_service_server::{ModelService, ModelServiceServer};
use tepal_proto::tensorflow::serving::model_version_status::State;
use tepal_proto::tensorflow::serving::prediction_service_server::{
    PredictionService, PredictionServiceServer,
};
use tepal_proto::tensorflow::serving::{
    GetModelMetadataRequest, GetModelMetadataResponse, GetModelStatusRequest, GetModelStatusResponse,
    ModelSpec, ModelVersionStatus, PredictRequest, PredictResponse,
};
use tokio::task::JoinHandle;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use self::model::Answers;
use super::SavedModels;

/// A running server. Dropping it stops it.
#[derive(Debug)]
pub struct Recorded {
    port: u16,
    calls: Calls,
    task: JoinHandle<()>,
}

/// The model and the output filter of every Predict call.
type Calls = Arc<Mutex<Vec<(String, Vec<String>)>>>;

#[derive(Clone)]
struct Service {
    models: Arc<BTreeMap<String, Answers>>,
    calls: Calls,
}

impl Recorded {
    /// Serves these models on a free port.
    ///
    /// # Panics
    /// When no port can be opened.
    pub async fn start(models: &SavedModels) -> Self {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let incoming = TcpIncoming::bind(addr).expect("a free port").with_nodelay(Some(true));
        let port = incoming.local_addr().expect("it is bound").port();
        let models = models.iter().map(|(name, model)| (name.clone(), Answers::of(model)));
        let service = Service { models: Arc::new(models.collect()), calls: Calls::default() };
        let calls = Arc::clone(&service.calls);
        let server = Server::builder()
            .add_service(PredictionServiceServer::new(service.clone()).max_decoding_message_size(usize::MAX))
            .add_service(ModelServiceServer::new(service));
        let task = tokio::spawn(async move {
            server.serve_with_incoming(incoming).await.expect("the model server accepts connections");
        });
        Self { port, calls, task }
    }

    /// Where the server listens on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The outputs that each Predict call of this model asked for; all if there are none.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn filters(&self, model: &str) -> Vec<Vec<String>> {
        let calls = self.calls.lock().expect("no panic while held");
        calls.iter().filter(|(name, _)| name == model).map(|(_, filter)| filter.clone()).collect()
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Service {
    fn model(&self, spec: Option<&ModelSpec>) -> Result<(&str, &Answers), Status> {
        let spec = spec.ok_or_else(|| Status::invalid_argument("Missing ModelSpec"))?;
        let found = self.models.get_key_value(&spec.name).filter(|_| proto::is_served(spec));
        let (name, model) = found.ok_or_else(|| {
            Status::not_found(format!("Servable not found for request: Latest({})", spec.name))
        })?;
        Ok((name, model))
    }
}

#[tonic::async_trait]
impl PredictionService for Service {
    async fn predict(&self, request: Request<PredictRequest>) -> Result<Response<PredictResponse>, Status> {
        let request = request.into_inner();
        let (name, model) = self.model(request.model_spec.as_ref())?;
        let call = (name.to_owned(), request.output_filter.clone());
        self.calls.lock().expect("no panic while held").push(call);
        let outputs = model.predict(&request)?;
        Ok(Response::new(PredictResponse { outputs, model_spec: Some(proto::model_spec(name)) }))
    }

    async fn get_model_metadata(
        &self,
        request: Request<GetModelMetadataRequest>,
    ) -> Result<Response<GetModelMetadataResponse>, Status> {
        let request = request.into_inner();
        let (name, model) = self.model(request.model_spec.as_ref())?;
        let metadata = BTreeMap::from([("signature_def".to_owned(), model.signatures())]);
        Ok(Response::new(GetModelMetadataResponse { model_spec: Some(proto::model_spec(name)), metadata }))
    }
}

#[tonic::async_trait]
impl ModelService for Service {
    async fn get_model_status(
        &self,
        request: Request<GetModelStatusRequest>,
    ) -> Result<Response<GetModelStatusResponse>, Status> {
        self.model(request.into_inner().model_spec.as_ref())?;
        let status =
            ModelVersionStatus { version: proto::VERSION, state: State::Available.into(), status: None };
        Ok(Response::new(GetModelStatusResponse { model_version_status: vec![status] }))
    }
}
