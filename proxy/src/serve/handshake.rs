//! TLS at the beginning of a connection. What fails here is mostly not ours to mend: a port scan, plain HTTP, a client that
//! does not know the authority. So it is counted, and told only in a log of everything.

use std::{io, sync::Arc, time::Duration};

use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsAcceptor, rustls, server::TlsStream};
use tracing::debug;

use crate::{certificate::Current, metrics::TlsMetrics};

/// Secures connections with the certificate of the moment.
pub(crate) struct Handshakes {
    pub(crate) current: Current,
    pub(crate) metrics: TlsMetrics,
    /// Longest time for one.
    pub(crate) timeout: Duration,
}

impl Handshakes {
    /// The secured connection; `None` when nothing came of it, which is counted if it was meant to.
    pub(super) async fn run(&self, stream: TcpStream) -> Option<TlsStream<TcpStream>> {
        let error = match timeout(self.timeout, self.secure(stream)).await {
            Ok(Ok(secured)) => return secured,
            Ok(Err(error)) => error,
            Err(_) => io::ErrorKind::TimedOut.into(),
        };
        let TlsMetrics { timeout, not_tls, broken, .. } = &self.metrics;
        let counter = match error.kind() {
            io::ErrorKind::TimedOut => timeout,
            _ if is_not_tls(&error) => not_tls,
            _ => broken,
        };
        counter.increment(1);
        debug!(action = "handshake_failed", %error);
        None
    }

    async fn secure(&self, stream: TcpStream) -> io::Result<Option<TlsStream<TcpStream>>> {
        // Who only looks whether the port is open, as load balancers do, has not failed.
        if stream.peek(&mut [0]).await? == 0 {
            return Ok(None);
        }
        let config = Arc::clone(&self.current.borrow());
        TlsAcceptor::from(config).accept(stream).await.map(Some)
    }
}

/// Whether the first bytes were none of TLS.
fn is_not_tls(error: &io::Error) -> bool {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    matches!(cause, Some(rustls::Error::InvalidMessage(_)))
}
