//! Connections: accepts them, limits them, and lets them finish when the service stops.

mod refusals;

use std::{pin::pin, sync::Arc, time::Duration};

use axum::{Router, extract::Request};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
};
use tepal_shared::shutdown::Shutdown;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tower::Service as _;
use tracing::{debug, info, warn};

use self::refusals::Refusals;
use crate::{config::ConnectionLimits, rate_limit::Peer};

/// Pause after a failed accept, which is mostly a lack of file descriptors: others must be closed first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `router` on `listener` until `shutdown` begins, then lets requests in flight finish.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    limits: &ConnectionLimits,
    shutdown: &Shutdown,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.header_timeout);
    let open = GracefulShutdown::new();
    let permits = Arc::new(Semaphore::new(limits.most));
    let mut stop = pin!(async {
        shutdown.begun().await;
        info!(action = "draining");
        sleep(limits.shutdown_delay).await;
    });
    loop {
        let (stream, peer, permit) = tokio::select! {
            accepted = accept(&listener, &permits) => accepted,
            () = &mut stop => break,
        };
        tokio::spawn(connection(http.clone(), stream, peer, router.clone(), open.watcher(), permit));
    }
    drop(listener);
    if timeout(limits.drain_timeout, open.shutdown()).await.is_err() {
        let connections = limits.most.saturating_sub(permits.available_permits());
        warn!(action = "drain_timed_out", connections);
    }
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> (TcpStream, Peer, Option<OwnedSemaphorePermit>) {
    // The semaphore is never closed, so there is always a permit.
    let permit = Arc::clone(permits).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, Peer(peer.ip()), permit),
            Err(error) => {
                warn!(action = "accept_failed", %error);
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(
    http: http1::Builder,
    stream: TcpStream,
    peer: Peer,
    router: Router,
    watcher: Watcher,
    permit: Option<OwnedSemaphorePermit>,
) {
    // Answers are small and written at once: waiting for more to send would only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(action = "nodelay_failed", %error);
    }
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        router.clone().call(request)
    });
    let served = watcher.watch(http.serve_connection(TokioIo::new(Refusals::new(stream)), service)).await;
    if let Err(error) = served {
        debug!(action = "connection_failed", %error);
    }
    drop(permit);
}
