//! A connection of HTTP/1.1: one request at a time.

use std::{io, sync::Arc};

use axum::extract::Request;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tower::Service as _;
use tracing::debug;

use super::{
    Connection, drain,
    overdue::{due, overdue},
    pace::Pace,
    refusals::Refusals,
    slots::Begin,
    write_timeout::WriteTimeout,
};
use crate::http::security_headers::SecurityHeaders;

/// Bytes that one connection holds of a request whose head is incomplete. Longer targets and headers are rejected; these bytes are
/// enough to see which of them it was.
const MOST_UNREAD: usize = 80 << 10;

/// Answers its requests.
pub(super) async fn answer(
    connection: Connection,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) {
    let Connection { server, peer, watcher, slot, .. } = connection;
    let headers = SecurityHeaders { is_tls: server.handshakes.is_some() };
    let (largest_body, reject) = (server.largest_body, Arc::clone(&server.reject));
    let stream = WriteTimeout::new(stream, Some(Arc::clone(&slot)), server.limits);
    let (waiting, limits) = (Arc::clone(&slot), server.limits);
    let overdue = overdue(move || due(&waiting, &limits), limits.header_timeout);
    let seen = Arc::clone(&slot);
    let pace = Pace::default();
    let service = service_fn(move |request: Request<Incoming>| {
        let (mut request, rest) = drain::drainable(request);
        request.extensions_mut().insert(peer);
        let slot = Arc::clone(&slot);
        // Requests of monitoring do not wait for other requests of their address.
        let is_paced = server.paced.contains(&request.uri().path());
        let turn = if is_paced { pace.turn() } else { None };
        let begun = slot.begin(!is_paced);
        // The handler starts when this is first polled.
        let answering = server.router.clone().call(request);
        async move {
            let is_kept = match (begun, turn) {
                (Begin::Now, None) => true,
                (Begin::Now, Some(turn)) => slot.wait_until(turn).await,
                (Begin::Later(_), _) => Box::pin(slot.begin_later()).await,
                (Begin::Lost, _) => false,
            };
            if !is_kept {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            let Ok(mut answer) = match rest {
                None => answering.await,
                // Boxed: it is needed rarely, and each request would hold as much.
                Some(rest) => Box::pin(rest.discard_beside(answering, &slot, largest_body)).await,
            };
            headers.add_to(answer.headers_mut());
            Ok::<_, io::Error>(slot.hold(answer))
        }
    });
    let stream = TokioIo::new(Refusals::new(stream, seen, headers, peer, reject));
    tokio::select! {
        // The connection runs first, because it sets what it waits for.
        biased;
        ended = watcher.watch(builder().serve_connection(stream, service)) => {
            if let Err(error) = ended {
                debug!(action = "connection_failed", %error);
            }
        }
        () = overdue => debug!(action = "connection_timed_out"),
    }
}

fn builder() -> http1::Builder {
    let mut http = http1::Builder::new();
    // The library has one limit for slow heads and idle connections; `overdue` has one for each.
    http.header_read_timeout(None).max_buf_size(MOST_UNREAD);
    http
}
