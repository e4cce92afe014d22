//! The thread that accepts connections. It has a runtime of its own: on that of the requests it would learn of new connections only
//! when a thread there has nothing else to do, and meanwhile the line of the operating system, which all clients share, would fill.

use std::{io, net, panic::resume_unwind, pin::pin, sync::Arc};

use hyper_util::server::graceful::GracefulShutdown;
use tokio::{runtime::Builder, task::spawn_blocking, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{Connection, Server, arrivals::Arrivals, slots::Slots, turns::Turns};

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
    /// When to end the others gracefully.
    pub(super) draining: CancellationToken,
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
        let Self { listener, slots, turns, server, stop, closing, draining } = self;
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
            let (server, turns, watcher) = (Arc::clone(&server), Arc::clone(&turns), open.watcher());
            let client = server.trusted.client(peer);
            let opening = Arc::clone(&turns);
            let connection = Connection { server, turns, peer, watcher, draining: draining.clone(), slot };
            opening.open(client, connection.run(stream, closing.clone()));
        }
    }
}
