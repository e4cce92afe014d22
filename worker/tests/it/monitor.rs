//! The port for Prometheus and orchestrators.

use tepal_tests::http::Client;

use crate::{queue::Queue, settings::Settings};

#[tokio::test]
async fn the_port_serves_metrics_and_livez_and_nothing_else() {
    let queue = Queue::start().await;
    let worker = queue.worker(Settings::onnx()).await;
    let client = Client::new(&format!("http://{}", worker.metrics_addr()));

    let metrics = client.get("/metrics").await;
    assert_eq!(metrics.status, 200);
    assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let live = client.get("/livez").await;
    assert_eq!((live.status, live.text().as_str()), (200, "ok"));
    for path in ["/", "/metrics/", "/livez2", "/health", "/predict"] {
        assert_eq!(client.get(path).await.status, 404, "{path}");
    }
}
