//! Connections: accepts them, limits them, and lets them finish when the service stops.

mod patience;
mod places;
mod refusals;

use std::{io, pin::pin, sync::Arc, time::Duration};

use axum::{Router, extract::Request};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
};
use tepal_shared::shutdown::Shutdown;
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tower::Service as _;
use tracing::{debug, info, warn};

use self::{
    patience::Patience,
    places::{Place, Places},
    refusals::Refusals,
};
use crate::{config::ConnectionLimits, rate_limit::Peer};

/// Pause after a failed accept, which is mostly a lack of file descriptors: others must be closed first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What one connection holds of a request that is not understood yet. Longer targets and headers are refused; these are
/// bytes enough to say which of them it was.
const MOST_UNREAD: usize = 80 << 10;

/// Serves `router` on `listener` until `shutdown` begins, then lets requests in flight finish.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    limits: &ConnectionLimits,
    shutdown: &Shutdown,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.header_timeout).max_buf_size(MOST_UNREAD);
    let open = GracefulShutdown::new();
    let places = Places::new(limits.most);
    let mut stop = pin!(async {
        shutdown.begun().await;
        info!(action = "draining");
        sleep(limits.shutdown_delay).await;
    });
    loop {
        let (stream, peer, place) = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            () = &mut stop => break,
        };
        let stream = Patience::new(stream, Arc::clone(&place), limits.write_timeout);
        tokio::spawn(connection(http.clone(), stream, peer, router.clone(), open.watcher(), place));
    }
    drop(listener);
    if timeout(limits.drain_timeout, open.shutdown()).await.is_err() {
        warn!(action = "drain_timed_out", connections = places.open());
    }
}

async fn accept(listener: &TcpListener, places: &Arc<Places>) -> (TcpStream, Peer, Arc<Place>) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Answers are small and written at once: waiting for more to send would only delay them.
                if let Err(error) = stream.set_nodelay(true) {
                    debug!(action = "nodelay_failed", %error);
                }
                return (stream, Peer(peer.ip()), places.take().await);
            }
            Err(error) => {
                warn!(action = "accept_failed", %error);
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(
    http: http1::Builder,
    stream: Patience<TcpStream>,
    peer: Peer,
    router: Router,
    watcher: Watcher,
    place: Arc<Place>,
) {
    let asked = Arc::clone(&place);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        let place = Arc::clone(&asked);
        let answering = place.begin().then(|| router.clone().call(request));
        async move {
            // Nothing was done for a request that arrived after the place was lost.
            let answering = answering.ok_or(io::ErrorKind::ConnectionAborted)?;
            let Ok(answer) = answering.await;
            Ok::<_, io::Error>(place.hold(answer))
        }
    });
    let serving = watcher.watch(http.serve_connection(TokioIo::new(Refusals::new(stream)), service));
    tokio::select! {
        served = serving => {
            if let Err(error) = served {
                debug!(action = "connection_failed", %error);
            }
        }
        () = place.lost() => debug!(action = "connection_made_room"),
    }
}
