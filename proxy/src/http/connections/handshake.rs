//! TLS handshakes. The usual causes of failures are on the other side: port scans, plain HTTP, clients that do not know the
//! authority. So failures are counted, and logged only at debug level.

use std::{io, time::Duration};

use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsAcceptor, rustls, server::TlsStream};
use tracing::debug;

use crate::{
    http::{certificate::Current, protocol::Protocol},
    metrics::TlsMetrics,
};

/// Secures connections with the present certificate.
pub(crate) struct Handshakes {
    pub(crate) current: Current,
    pub(crate) protocol: Protocol,
    pub(crate) metrics: TlsMetrics,
    /// Longest time for a handshake.
    pub(crate) timeout: Duration,
}

impl Handshakes {
    /// The secured connection; `None` if the handshake failed, which is counted, or if the client sent nothing.
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
        // A client that only checks whether the port is open, such as a load balancer, has not failed.
        if stream.peek(&mut [0]).await? == 0 {
            return Ok(None);
        }
        let config = self.current.borrow().of(self.protocol);
        TlsAcceptor::from(config).accept(stream).await.map(Some)
    }
}

/// The TLS library's error. Only clients have certificates that can be wrong here.
fn cause(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}
