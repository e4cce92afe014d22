//! Every connection secured: the API, Redis with client certificates, the model server with client certificates.

use serde_json::json;
use tepal_tests::certificates::Authority;
use tepal_tests::http::Method;
use tepal_tests::model_server::{ModelServer, ServerSpec};
use tepal_tests::process::{Proxy, Worker};
use tepal_tests::redis::RedisServer;
use tepal_tests::wait::eventually;

use crate::{SOON, healthy};

#[tokio::test]
async fn a_job_goes_all_the_way_over_secured_connections() {
    let authority = Authority::new();
    let redis = RedisServer::shipped().tls(&authority, true).start().await;
    let [api, model, client] = ["127.0.0.1", "127.0.0.1", "tepal"].map(|name| authority.issue(&[name]));
    let server = ModelServer::start_secured(ServerSpec::iris(), &model, &authority).await;
    let [ca, certificate, key] = [authority.certificate(), client.certificate, client.key]
        .map(|path| path.to_string_lossy().into_owned());
    let to_redis = [("REDIS_CA_FILE", &*ca), ("REDIS_CERT_FILE", &certificate), ("REDIS_KEY_FILE", &key)];
    let port = server.addr().port().to_string();
    let to_model = [
        ("MODEL_BACKEND", "tensorflow_serving"),
        ("TF_SERVING_GRPC_PORT", &*port),
        ("TF_SERVING_CA_FILE", &ca),
        ("TF_SERVING_CERT_FILE", &certificate),
        ("TF_SERVING_KEY_FILE", &key),
    ];
    let proxy = Proxy::start_secured(&redis.proxy_url(), &api, &authority, &to_redis).await;
    let _worker = Worker::start(&redis.worker_url(), &[&to_redis[..], &to_model].concat()).await;
    let client = proxy.client();
    healthy(&client).await;

    let id = client.predict(&json!([[5.1, 3.5, 1.4, 0.2]])).await;
    let waiting = client.request(Method::GET, &format!("/job/{id}"), &[("prefer", "wait=30")], "").await;
    assert_eq!(waiting.json()["status"], "completed", "{}", waiting.text());
    assert_eq!(client.finished(&id, SOON).await["result"]["class_name"], "setosa");
    assert_eq!(server.call_count(), 1);

    // After an outage the services connect again.
    redis.restart().await;
    let rows = json!([[5.1, 3.5, 1.4, 0.2]]);
    let accepted = async || match client.try_predict(&rows, &[]).await {
        Ok(answer) if answer.status == 202 => Ok(answer.json()["job_id"].as_str().unwrap().to_owned()),
        other => Err(format!("{other:?}")),
    };
    let again = eventually(SOON, "jobs to be accepted again", accepted).await;
    assert_eq!(client.finished(&again, SOON).await["status"], "completed");
}
