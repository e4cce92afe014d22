//! The server as a client sees it, through the generated client.

mod faults;
mod protocol;

use std::time::Duration;

use tepal_proto::tensorflow::serving::prediction_service_client::PredictionServiceClient;
use tepal_proto::tensorflow::serving::{ModelSpec, PredictRequest, PredictResponse};
use tepal_proto::tensorflow::{DataType, TensorProto};
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::reply::shape;
use super::{ModelServer, ServerSpec};

const SETOSA: [f32; 4] = [5.1, 3.5, 1.4, 0.2];
const VIRGINICA: [f32; 4] = [6.3, 3.3, 6.0, 2.5];
const SOON: Duration = Duration::from_secs(10);

async fn start(spec: ServerSpec) -> (ModelServer, PredictionServiceClient<Channel>) {
    let server = ModelServer::start(spec).await;
    let client = PredictionServiceClient::connect(url(&server)).await.unwrap();
    (server, client)
}

fn url(server: &ModelServer) -> String {
    format!("http://{}", server.addr())
}

async fn predict(
    client: &mut PredictionServiceClient<Channel>,
    request: PredictRequest,
) -> Result<PredictResponse, Status> {
    client.predict(request).await.map(Response::into_inner)
}

fn spawn_predict(client: &PredictionServiceClient<Channel>) -> JoinHandle<Result<PredictResponse, Status>> {
    let mut client = client.clone();
    tokio::spawn(async move { predict(&mut client, iris_request(&[SETOSA])).await })
}

fn iris_request(rows: &[[f32; 4]]) -> PredictRequest {
    let count = i64::try_from(rows.len()).unwrap();
    request("iris", [("input", content_tensor(&[count, 4], rows.as_flattened()))])
}

fn request<'a>(name: &str, inputs: impl IntoIterator<Item = (&'a str, TensorProto)>) -> PredictRequest {
    let inputs = inputs.into_iter().map(|(name, tensor)| (name.to_owned(), tensor)).collect();
    PredictRequest { model_spec: Some(model(name)), inputs, output_filter: vec![] }
}

fn model(name: &str) -> ModelSpec {
    ModelSpec { name: name.to_owned(), ..ModelSpec::default() }
}

fn content_tensor(sizes: &[i64], values: &[f32]) -> TensorProto {
    let content = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    TensorProto { tensor_content: content, ..float_tensor(sizes, &[]) }
}

fn float_tensor(sizes: &[i64], values: &[f32]) -> TensorProto {
    TensorProto {
        dtype: DataType::DtFloat.into(),
        tensor_shape: Some(shape(sizes.iter().copied())),
        float_val: values.to_vec(),
        ..TensorProto::default()
    }
}

fn sizes(tensor: &TensorProto) -> Vec<i64> {
    tensor.tensor_shape.iter().flat_map(|shape| &shape.dim).map(|dim| dim.size).collect()
}

/// The values of an answer in either style.
fn values(tensor: &TensorProto) -> Vec<f32> {
    let content = tensor.tensor_content.as_chunks().0.iter().copied().map(f32::from_le_bytes);
    tensor.float_val.iter().copied().chain(content).collect()
}
