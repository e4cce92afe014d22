//! Serves /metrics for Prometheus, /livez and /readyz for orchestrators, on a separate port.

use std::{io, net::SocketAddr, sync::Arc};

use axum::{
    Router,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tracing::warn;

use crate::{
    metrics,
    upkeep::{liveness::Liveness, readiness::Readiness},
};

/// The format that Prometheus reads (Prometheus documentation, "Exposition formats").
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What orchestrators ask about.
#[derive(Clone, Default)]
pub struct Probes {
    /// For /livez.
    pub liveness: Liveness,
    /// For /readyz.
    pub readiness: Readiness,
}

/// The open port. Clones share it.
#[derive(Clone)]
pub struct Monitor {
    listener: Arc<std::net::TcpListener>,
    router: Router,
}

impl Monitor {
    /// Listens on `addr`.
    ///
    /// # Errors
    /// When the address is taken or cannot be used.
    pub async fn open(addr: SocketAddr, handle: PrometheusHandle, probes: Probes) -> io::Result<Self> {
        let listener = Arc::new(TcpListener::bind(addr).await?.into_std()?);
        Ok(Self { listener, router: router(handle, probes) })
    }

    /// Serves for ever.
    pub async fn serve(self) {
        let listener = self.listener.try_clone().and_then(TcpListener::from_std);
        let served = async { axum::serve(listener?, self.router).await };
        if let Err(error) = served.await {
            warn!(action = "monitor_failed", %error);
        }
    }
}

fn router(handle: PrometheusHandle, probes: Probes) -> Router {
    let Probes { liveness, readiness } = probes;
    Router::new()
        .route(
            "/metrics",
            get(async move || ([(header::CONTENT_TYPE, METRICS_TYPE)], metrics::render(&handle))),
        )
        .route("/livez", get(async move || respond(liveness.stalled())))
        .route("/readyz", get(async move || respond(readiness.missing())))
        .fallback(async || {
            (StatusCode::NOT_FOUND, "Not found; this port serves /metrics, /livez and /readyz\n")
        })
}

/// 503 with the sentence that says what is wrong.
fn respond(wrong: Option<String>) -> impl IntoResponse + use<> {
    match wrong {
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
        assert_eq!(respond(liveness.stalled()).into_response().status(), 200);

        tokio::time::advance(Duration::from_secs(90)).await;
        let answer = respond(liveness.stalled()).into_response();
        assert_eq!(answer.status(), 503);
        let body = axum::body::to_bytes(answer.into_body(), 1000).await.unwrap();
        assert_eq!(body, "The heartbeat has not moved for 90 s");

        pulse.set(crate::upkeep::liveness::Activity::Work);
        assert_eq!(respond(liveness.stalled()).into_response().status(), 200);
    }
}
