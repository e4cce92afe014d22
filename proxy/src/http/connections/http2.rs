//! A connection of HTTP/2: many requests at a time, each a stream. The library bounds what one connection may hold; [`Streams`] bounds
//! how many requests it has in progress, how long its client may take, and how often it may reset a stream.

mod streams;

use std::{io, pin::pin, sync::Arc, time::Duration};

use axum::extract::Request;
use hyper::{body::Incoming, rt::Executor, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{sleep_until, timeout},
};
use tower::Service as _;
use tracing::debug;

use self::streams::{End, Streams};
use super::{Connection, pace::Pace, turns::Turns, write_timeout::WriteTimeout};
use crate::http::peer::Client;

/// Requests of one connection at a time. More of them wait with the client.
const MOST_STREAMS: u32 = 100;
/// Bytes of all names and values of a head, and 32 for each line (RFC 9113, section 6.5.2). Larger heads are answered with 431.
const LARGEST_HEAD: u32 = 16 << 10;
/// Bytes of a body, and of all bodies of a connection, that may arrive before they are read. A body is read, and its memory is
/// reserved, as soon as its request begins.
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 256 << 10;
/// Bytes of an answer that the library holds beside those that the connection takes.
const SEND_BUFFER: usize = 64 << 10;
/// How often the proxy asks a client whether it is there, and how long that may take.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(30);
const KEEP_ALIVE_WITHIN: Duration = Duration::from_secs(20);
/// How long an idle client may take to close its connection after the proxy has asked it to.
const GOODBYE: Duration = Duration::from_secs(1);

/// Runs the requests of a connection in turn with those of other clients.
#[derive(Clone)]
struct Lanes {
    turns: Arc<Turns>,
    client: Option<Client>,
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Lanes {
    fn execute(&self, request: F) {
        self.turns.spawn(self.client, request);
    }
}

/// Answers its requests.
pub(super) async fn answer(
    connection: Connection,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) {
    let Connection { server, turns, peer, watcher, draining, slot } = connection;
    // The service waits until it is dropped.
    let _open = watcher;
    let lanes = Lanes { turns, client: server.trusted.client(peer) };
    let stream = TokioIo::new(WriteTimeout::new(stream, None, server.limits));
    let streams = Streams::new(slot, server.limits);
    let opened = Arc::clone(&streams);
    let pace = Pace::default();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        // Requests of monitoring do not wait for other requests of their address.
        let is_paced = server.paced.contains(&request.uri().path());
        let turn = if is_paced { pace.turn() } else { None };
        let mut stream = opened.open();
        // The handler starts when this is first polled.
        let answering = server.router.clone().call(request);
        async move {
            if let Some(turn) = turn {
                sleep_until(turn).await;
            }
            if !stream.begin(!is_paced).await {
                return Err(io::Error::from(io::ErrorKind::ConnectionAborted));
            }
            let Ok(answer) = answering.await;
            Ok(stream.answer(answer))
        }
    });
    let mut connection = pin!(builder(lanes).serve_connection(stream, service));
    let end = tokio::select! {
        // The connection runs first, because it sets what it waits for.
        biased;
        ended = connection.as_mut() => return log(ended),
        () = draining.cancelled() => End::Draining,
        end = streams.end() => end,
    };
    match end {
        End::Draining => {
            connection.as_mut().graceful_shutdown();
            log(connection.await);
        }
        End::Idle => {
            debug!(action = "connection_timed_out");
            connection.as_mut().graceful_shutdown();
            let _ = timeout(GOODBYE, connection).await;
        }
        End::Stalled => debug!(action = "connection_timed_out"),
        End::Resets => debug!(action = "connection_reset_too_often"),
    }
}

fn log(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        debug!(action = "connection_failed", %error);
    }
}

fn builder(lanes: Lanes) -> http2::Builder<Lanes> {
    let mut http = http2::Builder::new(lanes);
    http.timer(TokioTimer::new())
        .max_concurrent_streams(MOST_STREAMS)
        .max_header_list_size(LARGEST_HEAD)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(KEEP_ALIVE_EVERY)
        .keep_alive_timeout(KEEP_ALIVE_WITHIN);
    http
}
