use tepal_proto::{
    grpc_health::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient},
    open_inference::{
        DataType, ModelConfigRequest, ModelMetadataRequest, ModelReadyRequest, ServerLiveRequest,
        ServerMetadataRequest, ServerReadyRequest,
    },
};
use tepal_tests::wait::eventually;
use tonic::{Code, Request};

use super::{Site, asked_with, assert_status};
use crate::gateway::SOON;

fn iris() -> (String, String) {
    ("iris".to_owned(), String::new())
}

#[tokio::test]
async fn the_server_is_live_and_ready_while_redis_answers() {
    let site = Site::start().await;
    let (mut client, mut health) = (site.client().await, HealthClient::new(site.channel().await));
    assert!(client.server_live(ServerLiveRequest {}).await.unwrap().into_inner().live);
    assert!(client.server_ready(ServerReadyRequest {}).await.unwrap().into_inner().ready);
    let mut check = async |service: &str| {
        let service = service.to_owned();
        health.check(HealthCheckRequest { service }).await.map(|answer| answer.into_inner().status())
    };
    for service in ["", "inference.GRPCInferenceService"] {
        assert_eq!(check(service).await.unwrap(), ServingStatus::Serving);
    }
    assert_eq!(check("other").await.unwrap_err().code(), Code::NotFound);

    site.gateway.redis.kill9();
    let is_down = async || !client.server_ready(ServerReadyRequest {}).await.unwrap().into_inner().ready;
    let mut is_down = is_down;
    eventually(SOON, "the server not to be ready", async || is_down().await).await;
    assert_eq!(check("").await.unwrap(), ServingStatus::NotServing);
    assert!(site.client().await.server_live(ServerLiveRequest {}).await.unwrap().into_inner().live);
}

#[tokio::test]
async fn a_model_is_ready_when_a_worker_can_call_it() {
    let site = Site::start().await;
    let mut client = site.client().await;
    let mut is_ready = async |name: &str, version: &str| {
        let asked = ModelReadyRequest { name: name.to_owned(), version: version.to_owned() };
        client.model_ready(asked).await.unwrap().into_inner().ready
    };
    assert!(!is_ready("iris", "").await);
    site.gateway.heartbeat_of("w", &[("iris", true, "")]);
    eventually(SOON, "the model to be ready", async || is_ready("iris", "").await).await;
    assert!(!is_ready("iris", "7").await);
    assert!(!is_ready("rose", "").await);
}

#[tokio::test]
async fn the_server_and_its_models_describe_themselves() {
    let site = Site::start().await;
    let mut client = site.client().await;
    let server = client.server_metadata(ServerMetadataRequest {}).await.unwrap().into_inner();
    assert_eq!(
        (server.name.as_str(), server.extensions.as_slice()),
        ("tepal", &["model_configuration".to_owned()][..])
    );
    let (name, version) = iris();
    let model = client.model_metadata(ModelMetadataRequest { name, version }).await.unwrap().into_inner();
    assert_eq!(
        (model.name.as_str(), model.versions, model.platform.as_str()),
        ("iris", vec!["1".to_owned()], "tepal")
    );
    let tensors = |tensors: &[_]| -> Vec<(String, String, Vec<i64>)> {
        let one = |it: &tepal_proto::open_inference::model_metadata_response::TensorMetadata| {
            (it.name.clone(), it.datatype.clone(), it.shape.clone())
        };
        tensors.iter().map(one).collect()
    };
    assert_eq!(tensors(&model.inputs), [("input".to_owned(), "FP32".to_owned(), vec![-1, 4])]);
    assert_eq!(tensors(&model.outputs), [("output".to_owned(), "FP32".to_owned(), vec![-1, 3])]);
    let (name, _) = iris();
    let config = ModelConfigRequest { name, version: "1".to_owned() };
    let config = client.model_config(config).await.unwrap().into_inner().config.unwrap();
    assert_eq!(
        (config.name.as_str(), config.backend.as_str(), config.max_batch_size),
        ("iris", "tepal", 1024)
    );
    let [input] = config.input.as_slice() else { panic!("{config:?}") };
    assert_eq!(
        (input.name.as_str(), input.data_type(), input.dims.as_slice()),
        ("input", DataType::TypeFp32, &[4][..])
    );
}

#[tokio::test]
async fn what_is_not_served_says_why() {
    let site = Site::start().await;
    let mut raw = tonic::client::Grpc::new(site.channel().await);
    let service = "/inference.GRPCInferenceService";
    for (path, word, message) in [
        (
            format!("{service}/ModelStreamInfer"),
            "not_supported",
            "Jobs have one result each; streaming is not supported",
        ),
        (
            format!("{service}/RepositoryModelLoad"),
            "not_supported",
            "Models are loaded by the workers: add a folder to their MODELS_DIR, or remove it",
        ),
        ("/grpc.health.v1.Health/Watch".to_owned(), "not_supported", "Ask with Check"),
        (format!("{service}/Other"), "not_found", "No such path"),
    ] {
        raw.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<ServerLiveRequest, ServerLiveRequest>::default();
        let request: Request<ServerLiveRequest> = asked_with(ServerLiveRequest {}, &[]);
        let status = raw.unary(request, path.parse().unwrap(), codec).await.unwrap_err();
        assert_status(&status, Code::Unimplemented, word, message);
    }
}
