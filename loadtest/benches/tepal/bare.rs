//! The limit of an HTTP service with the proxy's libraries: axum parses the JSON and answers a constant.

use std::net::SocketAddr;

use axum::http::{StatusCode, header::CONTENT_TYPE};
use axum::response::IntoResponse;
use axum::serve::ListenerExt as _;
use axum::{Json, Router, routing::post};
use serde_json::Value;
use tokio::net::TcpListener;

const ANSWER: &str = r#"{"job_id":"019f1d2e-0000-7000-8000-000000000000","status":"pending"}"#;

/// Serves until the process is killed.
pub(crate) async fn serve(addr: SocketAddr) {
    let listener = TcpListener::bind(addr).await.expect("the address is free");
    let listener = listener.tap_io(|stream| stream.set_nodelay(true).expect("a TCP socket"));
    let router =
        Router::new().route("/predict", post(answer)).route("/livez", axum::routing::get(|| async {}));
    axum::serve(listener, router).await.expect("axum serves");
}

async fn answer(Json(_): Json<Value>) -> impl IntoResponse {
    (StatusCode::ACCEPTED, [(CONTENT_TYPE, "application/json")], ANSWER)
}
