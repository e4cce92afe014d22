//! The metrics of connections and of TLS.

use metrics::{Counter, Gauge, counter, gauge};

use super::names::{
    CONNECTIONS, CONNECTIONS_LIMIT, CONNECTIONS_WAITING, DISPLACED, POSTPONED, TLS_EXPIRES, TLS_FAILED,
};

/// The connections of clients.
#[derive(Clone)]
pub(crate) struct ConnectionMetrics {
    pub(crate) open: Gauge,
    pub(crate) limit: Gauge,
    pub(crate) waiting: Gauge,
    pub(crate) displaced_draining: Counter,
    pub(crate) displaced_waiting: Counter,
    pub(crate) displaced_streaming: Counter,
    pub(crate) displaced_arriving: Counter,
    pub(crate) postponed: Counter,
}

/// TLS.
#[derive(Clone)]
pub(crate) struct TlsMetrics {
    pub(crate) expires: Gauge,
    pub(crate) timeout: Counter,
    pub(crate) not_tls: Counter,
    pub(crate) client_certificate: Counter,
    pub(crate) broken: Counter,
}

impl ConnectionMetrics {
    pub(super) fn new() -> Self {
        Self {
            open: gauge!(CONNECTIONS),
            limit: gauge!(CONNECTIONS_LIMIT),
            waiting: gauge!(CONNECTIONS_WAITING),
            displaced_draining: counter!(DISPLACED, "while" => "draining"),
            displaced_waiting: counter!(DISPLACED, "while" => "waiting"),
            displaced_streaming: counter!(DISPLACED, "while" => "streaming"),
            displaced_arriving: counter!(DISPLACED, "while" => "arriving"),
            postponed: counter!(POSTPONED),
        }
    }

    /// Counts nothing.
    #[cfg(test)]
    pub(crate) fn noop() -> Self {
        let (gauge, counter) = (Gauge::noop, Counter::noop);
        Self {
            open: gauge(),
            limit: gauge(),
            waiting: gauge(),
            displaced_draining: counter(),
            displaced_waiting: counter(),
            displaced_streaming: counter(),
            displaced_arriving: counter(),
            postponed: counter(),
        }
    }
}

impl TlsMetrics {
    pub(super) fn new() -> Self {
        Self {
            expires: gauge!(TLS_EXPIRES),
            timeout: counter!(TLS_FAILED, "reason" => "timeout"),
            not_tls: counter!(TLS_FAILED, "reason" => "not_tls"),
            client_certificate: counter!(TLS_FAILED, "reason" => "client_certificate"),
            broken: counter!(TLS_FAILED, "reason" => "broken"),
        }
    }
}
