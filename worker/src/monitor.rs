//! What Prometheus and orchestrators read: /metrics and /livez, on a port of their own.

use std::{io, net::SocketAddr};

use axum::{
    Router,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;

use crate::{liveness::Liveness, metrics};

/// The format that Prometheus reads (Prometheus documentation, "Exposition formats").
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Listens on `addr`, and then serves for ever.
///
/// # Errors
/// When the address is taken or cannot be used.
pub async fn open(
    addr: SocketAddr,
    handle: PrometheusHandle,
    liveness: Liveness,
) -> io::Result<impl Future<Output = io::Result<()>>> {
    let listener = TcpListener::bind(addr).await?;
    Ok(axum::serve(listener, router(handle, liveness)).into_future())
}

fn router(handle: PrometheusHandle, liveness: Liveness) -> Router {
    Router::new()
        .route(
            "/metrics",
            get(async move || ([(header::CONTENT_TYPE, METRICS_TYPE)], metrics::render(&handle))),
        )
        .route("/livez", get(async move || livez(&liveness)))
        .fallback(async || (StatusCode::NOT_FOUND, "Not found; this port serves /metrics and /livez\n"))
}

fn livez(liveness: &Liveness) -> impl IntoResponse + use<> {
    match liveness.stalled() {
        None => (StatusCode::OK, "ok".to_owned()),
        Some(sentence) => (StatusCode::SERVICE_UNAVAILABLE, sentence),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn livez_fails_with_a_sentence_while_a_loop_does_not_move() {
        let liveness = Liveness::default();
        let pulse = liveness.watch("heartbeat".to_owned(), Duration::ZERO);
        assert_eq!(livez(&liveness).into_response().status(), 200);

        tokio::time::advance(Duration::from_secs(90)).await;
        let answer = livez(&liveness).into_response();
        assert_eq!(answer.status(), 503);
        let body = axum::body::to_bytes(answer.into_body(), 1000).await.unwrap();
        assert_eq!(body, "The heartbeat has not moved for 90 s");

        pulse.step(crate::liveness::Step::Work);
        assert_eq!(livez(&liveness).into_response().status(), 200);
    }
}
