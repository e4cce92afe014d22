//! The connection to a model server.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tepal_shared::process::{
    settings::Host,
    telemetry,
    tls::{ClientTls, Reason, TlsServer},
};
use tonic::{
    Status,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};
use tracing::debug;

use super::failure;
use crate::backend::{BackendError, OpenError, Verdict, settings::ModelServer};

/// The reply of a full batch of wide rows is larger than tonic's default limit of 4 MiB.
pub(in crate::backend) const LARGEST_REPLY_BYTES: usize = 64 << 20;
/// How often a call is sent again whose connection the server closed before it saw the call. More than once, because the
/// client notices a moment later that a connection closes.
const MOST_RESENDS: u32 = 5;
const RESEND_PAUSE: Duration = Duration::from_millis(5);

/// A connection that opens itself, again and again.
pub(in crate::backend) struct Connection {
    channel: Channel,
    /// The server, for explanations of failed handshakes; `None` without TLS.
    tls: Option<TlsServer>,
    /// Whether the server answered a call since it was last unreachable.
    has_answered: AtomicBool,
}

impl Connection {
    /// Connects at the first call.
    pub(in crate::backend) fn open(server: &ModelServer) -> Result<Self, OpenError> {
        let ModelServer { prefix, host, port, tls } = server;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let mut endpoint = Endpoint::from_shared(format!("{scheme}://{host}:{port}"))
            .map_err(|source| OpenError::Address { prefix, host: host.to_string(), source })?;
        if let Some(tls) = tls {
            let expected = tls.name.as_ref().unwrap_or(host);
            let config = client_config(&tls.client, expected);
            endpoint = endpoint.tls_config(config).map_err(|source| OpenError::Tls { prefix, source })?;
        }
        let channel = endpoint
            .connect_timeout(Duration::from_secs(2))
            .tcp_nodelay(true)
            .tcp_keepalive(Some(Duration::from_secs(30)))
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(5))
            .keep_alive_while_idle(true)
            .connect_lazy();
        let tls = tls.as_ref().map(|tls| TlsServer {
            name: "the model server",
            prefix,
            has_identity: tls.client.identity.is_some(),
        });
        Ok(Self { channel, tls, has_answered: AtomicBool::new(false) })
    }

    /// For clients of services.
    pub(in crate::backend) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Asks a question. If the connection breaks and it worked before, asks again: it does not matter whether the server saw the
    /// first question.
    pub(in crate::backend) async fn ask<T, Asked>(
        &self,
        question: impl Fn() -> Asked,
    ) -> Result<T, BackendError>
    where
        Asked: Future<Output = Result<T, BackendError>>,
    {
        let has_answered = self.has_answered.load(Ordering::Relaxed);
        match question().await {
            Err(error) if error.verdict == Verdict::Broken && has_answered => question().await,
            asked => asked,
        }
    }

    /// Makes a call. If the server closed the connection in order and did not see the call, sends it on a new connection.
    pub(in crate::backend) async fn send<T, Sent>(&self, call: impl Fn() -> Sent) -> Result<T, Status>
    where
        Sent: Future<Output = Result<T, Status>>,
    {
        let mut left = MOST_RESENDS;
        loop {
            let ended = call().await;
            let failed = ended.as_ref().err().filter(|status| failure::is_connection_failure(status));
            let Some(status) = failed else {
                self.has_answered.store(true, Ordering::Relaxed);
                return ended;
            };
            // The breaker deals with a server that has not answered since it was unreachable.
            let may_resend = self.has_answered.load(Ordering::Relaxed) && left > 0;
            if !may_resend || !failure::was_left_unsent(status) {
                // A server that broke a connection was reachable.
                self.has_answered.fetch_and(failure::was_sent(status), Ordering::Relaxed);
                return ended;
            }
            debug!(action = "call_sent_again", error = telemetry::chain(status));
            left -= 1;
            tokio::time::sleep(RESEND_PAUSE).await;
        }
    }

    /// What the status of a failed call means.
    pub(in crate::backend) fn failure(&self, status: Status) -> BackendError {
        match self.tls_server(&status).and_then(|server| server.explain(&status)) {
            Some(reason) => unavailable(&reason, status),
            None => failure::from_status(status),
        }
    }

    /// What the status of the first call on a connection means. The server may have rejected our certificate and closed the
    /// connection before the alert arrived.
    pub(in crate::backend) fn first_failure(&self, status: Status) -> BackendError {
        match self.tls_server(&status) {
            Some(server) if !failure::never_connected(&status) && server.explain(&status).is_none() => {
                unavailable(&server.explain_closed(), status)
            }
            _ => self.failure(status),
        }
    }

    /// The server, if the connection to it failed and is to be secured.
    fn tls_server(&self, status: &Status) -> Option<TlsServer> {
        self.tls.filter(|_| failure::is_connection_failure(status))
    }
}

/// Trusted authorities, client certificate, and the expected name.
fn client_config(tls: &ClientTls, expected: &Host) -> ClientTlsConfig {
    let ClientTls { authorities, identity } = tls;
    let mut config = ClientTlsConfig::new().domain_name(expected.as_str());
    config = match authorities {
        Some(authorities) => config.ca_certificate(Certificate::from_pem(authorities)),
        None => config.with_webpki_roots(),
    };
    if let Some(identity) = identity {
        config = config.identity(Identity::from_pem(&identity.chain, identity.expose_key()));
    }
    config
}

fn unavailable(reason: &Reason, status: Status) -> BackendError {
    let message = format!("The model server is not available: {reason}");
    BackendError::new(Verdict::Unavailable, "model_unavailable", message).because(status)
}
