//! An HTTP/1.1 client over a bounded pool of keep-alive connections. It knows requests and answers, not the API.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CACHE_CONTROL, HeaderMap, RETRY_AFTER};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::failure::{Failure, FailureKind};

/// Larger answers are malformed. A job record of 1024 rows has about a hundredth of this.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;

type Connection = SendRequest<Full<Bytes>>;

/// The parts of an answer that the load generator needs.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The HTTP status.
    pub(crate) status: StatusCode,
    /// `Retry-After`, if it is in seconds.
    pub(crate) retry_after: Option<Duration>,
    /// `max-age` of `Cache-Control`.
    pub(crate) max_age: Option<Duration>,
    /// The whole body.
    pub(crate) body: Bytes,
}

/// A cheap handle to one pool. When all connections are busy, a request waits for one.
#[derive(Clone, Debug)]
pub(crate) struct Client(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    address: SocketAddr,
    /// A stack: the connection used last is reused first, so surplus connections stay idle until the server closes them.
    idle: Mutex<Vec<Connection>>,
    slots: Semaphore,
}

impl Client {
    /// A pool of at most `connections` connections to `address`, opened when first needed.
    pub(crate) fn new(address: SocketAddr, connections: usize) -> Self {
        Self(Arc::new(Pool { address, idle: Mutex::default(), slots: Semaphore::new(connections) }))
    }

    /// Sends one request and reads the whole answer within `limit`, the wait for a connection included.
    ///
    /// # Errors
    /// [`FailureKind::Connect`], [`FailureKind::ConnectionLost`], [`FailureKind::Timeout`], or
    /// [`FailureKind::Malformed`] for a body over 16 MiB.
    pub(crate) async fn send(
        &self,
        request: Request<Full<Bytes>>,
        limit: Duration,
    ) -> Result<Answer, Failure> {
        let answer = tokio::time::timeout(limit, self.0.exchange(request)).await;
        answer.unwrap_or(Err(FailureKind::Timeout)).map_err(Failure::from)
    }
}

impl Pool {
    async fn exchange(&self, mut request: Request<Full<Bytes>>) -> Result<Answer, FailureKind> {
        let _slot = self.slots.acquire().await.map_err(|_| FailureKind::Connect)?;
        loop {
            let mut connection = self.check_out().await?;
            match connection.try_send_request(request).await {
                Ok(response) => return self.read(response, connection).await,
                // The server closed an idle connection before anything was sent: send the request again.
                Err(mut error) => request = error.take_message().ok_or(FailureKind::ConnectionLost)?,
            }
        }
    }

    async fn check_out(&self) -> Result<Connection, FailureKind> {
        while let Some(mut connection) = self.pop_idle() {
            if connection.ready().await.is_ok() {
                return Ok(connection);
            }
        }
        self.connect().await
    }

    fn pop_idle(&self) -> Option<Connection> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    async fn connect(&self) -> Result<Connection, FailureKind> {
        let stream = TcpStream::connect(self.address).await.map_err(|_| FailureKind::Connect)?;
        stream.set_nodelay(true).map_err(|_| FailureKind::Connect)?;
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (connection, driver) = handshake.map_err(|_| FailureKind::Connect)?;
        // The driver ends when either side closes; a failure reaches the request that was on the connection.
        tokio::spawn(driver);
        Ok(connection)
    }

    async fn read(
        &self,
        response: Response<Incoming>,
        connection: Connection,
    ) -> Result<Answer, FailureKind> {
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await.map_err(|error| {
            if error.is::<hyper::Error>() { FailureKind::ConnectionLost } else { FailureKind::Malformed }
        })?;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        let (retry_after, max_age) = (retry_after(&head.headers), max_age(&head.headers));
        Ok(Answer { status: head.status, retry_after, max_age, body: body.to_bytes() })
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let mut directives = headers.get(CACHE_CONTROL)?.to_str().ok()?.split(',');
    let seconds = directives.find_map(|directive| directive.trim().strip_prefix("max-age="))?;
    Some(Duration::from_secs(seconds.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_in_seconds_only() {
        let read = |value: &str| retry_after(&HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())]));
        assert_eq!(read("3"), Some(Duration::from_secs(3)));
        assert_eq!(read("Wed, 21 Oct 2015 07:28:00 GMT"), None);
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }

    #[test]
    fn max_age_is_found_among_other_directives() {
        let read = |value: &str| max_age(&HeaderMap::from_iter([(CACHE_CONTROL, value.parse().unwrap())]));
        assert_eq!(read("private, max-age=60, immutable"), Some(Duration::from_secs(60)));
        assert_eq!((read("private, no-cache"), max_age(&HeaderMap::new())), (None, None));
    }
}
