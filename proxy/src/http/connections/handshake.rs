//! TLS at the beginning of a connection. What fails here is mostly not ours to mend: a port scan, plain HTTP, a client that
//! does not know the authority. So it is counted, and told only in a log of everything.

use std::{io, sync::Arc, time::Duration};

use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsAcceptor, rustls, server::TlsStream};
use tracing::debug;

use crate::{http::certificate::Current, metrics::TlsMetrics};

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
        let TlsMetrics { timeout, not_tls, client_certificate, broken, .. } = &self.metrics;
        let counter = match error.kind() {
            io::ErrorKind::TimedOut => timeout,
            _ => match cause(&error) {
                Some(rustls::Error::InvalidMessage(_)) => not_tls,
                Some(rustls::Error::NoCertificatesPresented | rustls::Error::InvalidCertificate(_)) => {
                    client_certificate
                }
                _ => broken,
            },
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

/// What the TLS library says; only clients have certificates that could be wrong here.
fn cause(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}
