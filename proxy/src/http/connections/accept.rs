//! The thread that accepts connections. It has a runtime of its own: on that of the requests it would learn of new connections only
//! when a thread there has nothing else to do, and meanwhile the line of the operating system, which all clients share, would fill.

use std::{io, net, panic::resume_unwind, pin::pin, sync::Arc};

use hyper::server::conn::http1;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::{runtime::Builder, task::spawn_blocking, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{Connection, MOST_UNREAD, Server, arrivals::Arrivals, slots::Slots, turns::Turns};

/// What the thread needs.
pub(super) struct Accepting {
    pub(super) listener: net::TcpListener,
    pub(super) slots: Arc<Slots>,
    pub(super) turns: Arc<Turns>,
    pub(super) server: Arc<Server>,
    /// When to stop.
    pub(super) stop: CancellationToken,
    /// When to close connections without a request.
    pub(super) closing: CancellationToken,
}

impl Accepting {
    /// Accepts connections until the service stops. Returns those that are open.
    pub(super) async fn start(self) -> io::Result<GracefulShutdown> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        match spawn_blocking(move || runtime.block_on(self.run())).await {
            Ok(open) => open,
            Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    async fn run(self) -> io::Result<GracefulShutdown> {
        let Self { listener, slots, turns, server, stop, closing } = self;
        let mut http = http1::Builder::new();
        // The library has one limit for slow heads and idle connections; `overdue` has one for each.
        http.header_read_timeout(None).max_buf_size(MOST_UNREAD);
        let open = GracefulShutdown::new();
        let mut stopped = pin!(async {
            stop.cancelled().await;
            info!(action = "draining");
            sleep(server.limits.shutdown_delay).await;
        });
        let mut arrivals = Arrivals::new(listener, slots, server.trusted.clone(), server.limits.waiting)?;
        loop {
            let (stream, peer, slot) = tokio::select! {
                arrival = arrivals.next() => arrival,
                () = &mut stopped => return Ok(open),
                // Nobody waits for this thread any more.
                () = closing.cancelled() => return Ok(open),
            };
            let (server, http, watcher) = (Arc::clone(&server), http.clone(), open.watcher());
            let client = server.trusted.client(peer);
            let connection = Connection { server, http, turns: Arc::clone(&turns), peer, watcher, slot };
            turns.open(client, connection.run(stream, closing.clone()));
        }
    }
}
