//! Before any load: checks that a Tepal proxy answers at the URL and accepts the API key.

use std::net::SocketAddr;

use hyper::StatusCode;
use tokio::net::{TcpStream, lookup_host};

use crate::http::api::Api;
use crate::http::target::Target;

/// Why no load can be sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreachable {
    /// Nothing listens at the address, or another program does.
    #[error("No Tepal proxy answers at {url}; start one with `make up` ({reason})")]
    NoProxy {
        /// The URL of the command line.
        url: String,
        /// The error, or the unexpected answer.
        reason: String,
    },
    /// The proxy needs a key, or another one.
    #[error("The proxy at {url} answers {status}; set a valid key with --api-key or TEPAL_API_KEY")]
    KeyRefused {
        /// The URL of the command line.
        url: String,
        /// 401 or 403.
        status: u16,
    },
}

/// Finds an address of the target that accepts connections.
///
/// # Errors
/// [`Unreachable::NoProxy`] if there is none.
pub(crate) async fn resolve(target: &Target) -> Result<SocketAddr, Unreachable> {
    let addresses = lookup_host(target.host_and_port()).await.map_err(|error| no_proxy(target, &error))?;
    let mut last = "the host name has no address".to_owned();
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(_) => return Ok(address),
            Err(error) => last = error.to_string(),
        }
    }
    Err(no_proxy(target, &last))
}

/// Reads the health report, which only a proxy has, and a job that cannot exist, which needs a key. Returns a note if the proxy
/// is not healthy. The load can start nevertheless.
///
/// # Errors
/// [`Unreachable`], with the reason.
pub(crate) async fn check(api: &Api) -> Result<Option<String>, Unreachable> {
    let health = api.get("/health").await.map_err(|failure| no_proxy(&api.target, &failure.kind))?;
    let is_report = serde_json::from_slice::<serde_json::Value>(&health.body)
        .is_ok_and(|body| body["status"].is_string());
    if !is_report && !is_refused(health.status) {
        let reason = format!("GET /health answers {} without a health report", health.status.as_u16());
        return Err(no_proxy(&api.target, &reason));
    }
    let job = api.get("/job/none").await.map_err(|failure| no_proxy(&api.target, &failure.kind))?;
    for status in [health.status, job.status] {
        if is_refused(status) {
            return Err(Unreachable::KeyRefused { url: api.target.to_string(), status: status.as_u16() });
        }
    }
    let unhealthy =
        format!("The proxy reported that it is not healthy before the run: {}", compact(&health.body));
    Ok((health.status != StatusCode::OK).then_some(unhealthy))
}

fn is_refused(status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}

fn compact(body: &[u8]) -> String {
    String::from_utf8_lossy(body).chars().take(300).collect()
}

fn no_proxy(target: &Target, reason: &impl ToString) -> Unreachable {
    Unreachable::NoProxy { url: target.to_string(), reason: reason.to_string() }
}
