//! The Open Inference Protocol over gRPC, with the client of `tepal-proto`.
//!
//! | module | shows |
//! | --- | --- |
//! | `infer` | requests and answers: raw tensors, lists, parameters, each kind of mistake |
//! | `metadata` | health, metadata, what is not supported |
//! | `waiting` | deadlines, clients that go away, idempotency keys, shutdown |
//! | `refusals` | API keys, rate limits, sizes, requests that are not gRPC; metrics and log |
//! | `hostile` | clients that break the rules of HTTP/2, or use all that it allows |
//! | `secured` | TLS and client certificates |
//!
//! `wire` is a client that also sends what a library would not.

mod hostile;
mod infer;
mod metadata;
mod refusals;
mod secured;
mod waiting;
mod wire;

use tepal_proto::open_inference::{
    InferParameter, ModelInferRequest, ModelInferResponse,
    grpc_inference_service_client::GrpcInferenceServiceClient, infer_parameter::ParameterChoice,
    model_infer_request::InferInputTensor,
};
use tepal_shared::{queue::work::Settlement, tensor::Tensor};
use tepal_tests::ports::free_port;
use tonic::{Code, Request, Response, Status, metadata::MetadataMap, transport::Channel};
use tonic_types::StatusExt as _;

use crate::{
    expect::REQUEST_ID,
    gateway::{Gateway, SOON},
    v2::{complete, floats, next_job, output},
};

/// A gateway that speaks gRPC.
pub(crate) struct Site {
    pub(crate) gateway: Gateway,
    pub(crate) addr: String,
}

type Client = GrpcInferenceServiceClient<Channel>;
/// The outcome of an inference.
type Outcome = Result<Response<ModelInferResponse>, Status>;

impl Site {
    async fn start() -> Self {
        Self::with(&[]).await
    }

    pub(crate) async fn with(settings: &[(&str, &str)]) -> Self {
        let addr = format!("127.0.0.1:{}", free_port());
        let settings = [settings, &[("GRPC_LISTEN_ADDR", addr.as_str())]].concat();
        Self { gateway: Gateway::with(&settings).await, addr }
    }

    async fn channel(&self) -> Channel {
        let endpoint = Channel::from_shared(format!("http://{}", self.addr)).unwrap();
        endpoint.connect_timeout(SOON).connect().await.unwrap()
    }

    async fn client(&self) -> Client {
        GrpcInferenceServiceClient::new(self.channel().await).max_decoding_message_size(64 << 20)
    }

    /// Sends the request, with the request id that the assertions expect.
    async fn infer(&self, request: Request<ModelInferRequest>) -> Outcome {
        self.client().await.model_infer(request).await
    }

    /// The same while the test plays the worker.
    async fn exchange(&self, request: Request<ModelInferRequest>) -> Outcome {
        let worker = async {
            let job = next_job(&self.gateway).await;
            complete(&self.gateway, &job.attempt.claim, &[output()]).await;
        };
        tokio::join!(self.infer(request), worker).0
    }

    /// The same, and the job fails.
    async fn fails(&self, code: &str) -> Status {
        let worker = async {
            let job = next_job(&self.gateway).await;
            let failure = Settlement::Fail { code: code.to_owned(), error: "It did not work".to_owned() };
            self.gateway.settle(&job.attempt.claim, failure).await;
        };
        tokio::join!(self.infer(asked(flower())), worker).0.unwrap_err()
    }

    /// The first line of the log with this action.
    async fn logged(&self, action: &str) -> serde_json::Value {
        serde_json::from_str(&self.gateway.proxy.wait_for_log(action, SOON).await).unwrap()
    }

    async fn job(&self, id: &str) -> serde_json::Value {
        self.gateway.get(&format!("/job/{id}")).await.json()
    }
}

fn input() -> InferInputTensor {
    InferInputTensor {
        name: "input".to_owned(),
        datatype: "FP32".to_owned(),
        shape: vec![1, 4],
        ..InferInputTensor::default()
    }
}

/// A request for the reference model.
fn flower() -> ModelInferRequest {
    ModelInferRequest {
        model_name: "iris".to_owned(),
        inputs: vec![input()],
        raw_input_contents: vec![floats(&[5.1, 3.5, 1.4, 0.2]).into()],
        ..ModelInferRequest::default()
    }
}

fn parameter(choice: ParameterChoice) -> InferParameter {
    InferParameter { parameter_choice: Some(choice) }
}

/// A request with these parameters.
fn with_parameters(parameters: &[(&str, ParameterChoice)]) -> ModelInferRequest {
    let parameters = parameters.iter().map(|(name, choice)| ((*name).to_owned(), parameter(choice.clone())));
    ModelInferRequest { parameters: parameters.collect(), ..flower() }
}

fn asked(message: ModelInferRequest) -> Request<ModelInferRequest> {
    asked_with(message, &[])
}

/// The request with these lines of metadata.
fn asked_with<T>(message: T, lines: &[(&'static str, &str)]) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("x-request-id", REQUEST_ID.parse().unwrap());
    for (name, value) in lines {
        request.metadata_mut().insert(*name, value.parse().unwrap());
    }
    request
}

fn line<'a>(metadata: &'a MetadataMap, name: &str) -> Option<&'a str> {
    metadata.get(name).map(|value| value.to_str().unwrap())
}

/// The one output of an answer, as raw bytes.
#[track_caller]
fn raw_output(outcome: Outcome) -> (Tensor, ModelInferResponse, MetadataMap) {
    let (metadata, message, _) = outcome.unwrap().into_parts();
    let [output] = message.outputs.as_slice() else { panic!("{message:?}") };
    assert!(output.contents.is_none());
    let tensor = Tensor {
        name: output.name.clone(),
        datatype: serde_json::from_value(output.datatype.clone().into()).unwrap(),
        shape: output.shape.iter().map(|length| usize::try_from(*length).unwrap()).collect(),
        data: message.raw_output_contents.concat(),
    };
    (tensor, message, metadata)
}

/// Asserts that the status is this error.
#[track_caller]
fn assert_status(status: &Status, code: Code, word: &str, message: &str) {
    assert_eq!((status.code(), status.message()), (code, message));
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("{status:?}"));
    assert_eq!((info.reason.as_str(), info.domain.as_str()), (word.to_ascii_uppercase().as_str(), "tepal"));
    assert_eq!(line(status.metadata(), "x-request-id"), Some(REQUEST_ID));
}
