//! A small HTTP/1.1 client for tests: whole answers, whatever the status, and raw bytes for protocol-level
//! tests.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
pub use hyper::body::Bytes;
pub use hyper::{HeaderMap, Method};
use hyper::{Request, Response, body::Incoming};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{self, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::rustls::ClientConfig;

use crate::certificates::{Authority, Pair, client_config};
use crate::wait::poll;

/// The statuses after which a job never changes again.
pub const TERMINAL: [&str; 3] = ["completed", "failed", "cancelled"];

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// All headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// No connection was made: the server cannot have seen the request.
    NotSent(String),
    /// The request may or may not have been carried out.
    Unknown(String),
}

/// A client of one server. It keeps connections alive; use it on the runtime that made it.
#[derive(Clone, Debug)]
pub struct Client {
    base: String,
    within: Duration,
    http: legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Panics
    /// When it is not JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.text()))
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header's value, if the answer has the header and its value is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// For an answer of `/metrics`: the sum of all samples of this name over their labels; 0 if there is
    /// none.
    #[must_use]
    pub fn metric(&self, name: &str) -> f64 {
        let samples = self.text();
        let of_name = samples.lines().filter_map(|line| line.strip_prefix(name));
        let values =
            of_name.filter(|rest| rest.starts_with(['{', ' '])).filter_map(|rest| rest.rsplit(' ').next());
        values.filter_map(|value| value.parse::<f64>().ok()).sum()
    }
}

impl Client {
    /// A client of `base`, e.g. `http://127.0.0.1:8000`, that waits up to 30 s for an answer.
    #[must_use]
    pub fn new(base: &str) -> Self {
        Self::with_tls(base, client_config(None, None), None)
    }

    /// The same from this address. On Linux, all of 127.0.0.0/8 is this machine.
    #[must_use]
    pub fn from_address(base: &str, local: IpAddr) -> Self {
        Self::with_tls(base, client_config(None, None), Some(local))
    }

    /// The same for an `https://` base whose certificate is from this authority.
    #[must_use]
    pub fn trusting(base: &str, authority: &Authority, identity: Option<&Pair>) -> Self {
        Self::with_tls(base, authority.client_config(identity), None)
    }

    fn with_tls(base: &str, tls: ClientConfig, local: Option<IpAddr>) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_local_address(local);
        connector.set_nodelay(true);
        connector.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let http =
            legacy::Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        Self { base: base.trim_end_matches('/').to_owned(), within: Duration::from_secs(30), http }
    }

    /// The same client with another timeout for a whole exchange.
    #[must_use]
    pub fn with_timeout(mut self, within: Duration) -> Self {
        self.within = within;
        self
    }

    /// Sends a request and reads the whole answer, whatever its status.
    ///
    /// # Errors
    /// When no whole answer came; the variant says if the server may have seen the request.
    ///
    /// # Panics
    /// When a header or the path is not valid HTTP: use [`raw`] for such tests.
    pub async fn try_request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer, NoAnswer> {
        let builder = Request::builder().method(method).uri(format!("{}{path}", self.base));
        let builder = headers.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value));
        let request = builder.body(Full::new(body.into())).expect("a valid request");
        let exchange = async { whole(self.http.request(request).await.map_err(NoAnswer::from)?).await };
        let late = |_| Err(NoAnswer::Unknown(format!("no answer within {:?}", self.within)));
        timeout(self.within, exchange).await.unwrap_or_else(late)
    }

    /// [`try_request`](Self::try_request) that panics when no answer came.
    pub async fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let called = format!("{method} {}{path}", self.base);
        self.try_request(method, path, headers, body)
            .await
            .unwrap_or_else(|error| panic!("{called}: {error}"))
    }

    /// `GET path`.
    ///
    /// # Errors
    /// As [`try_request`](Self::try_request).
    pub async fn try_get(&self, path: &str) -> Result<Answer, NoAnswer> {
        self.try_request(Method::GET, path, &[], Bytes::new()).await
    }

    /// `GET path`.
    pub async fn get(&self, path: &str) -> Answer {
        self.request(Method::GET, path, &[], Bytes::new()).await
    }

    /// `DELETE path`.
    pub async fn delete(&self, path: &str) -> Answer {
        self.request(Method::DELETE, path, &[], Bytes::new()).await
    }

    /// `POST path` with a JSON body.
    pub async fn post_json(&self, path: &str, body: &Value) -> Answer {
        self.post_raw(path, body.to_string()).await
    }

    /// `POST path` with any bytes that claim to be JSON.
    pub async fn post_raw(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        self.request(Method::POST, path, &[("content-type", "application/json")], body).await
    }

    /// `POST /predict` with these rows and headers.
    ///
    /// # Errors
    /// As [`try_request`](Self::try_request).
    pub async fn try_predict(&self, rows: &Value, headers: &[(&str, &str)]) -> Result<Answer, NoAnswer> {
        let headers = [&[("content-type", "application/json")], headers].concat();
        self.try_request(Method::POST, "/predict", &headers, json!({ "data": rows }).to_string()).await
    }

    /// Submits rows and returns the id of the accepted job.
    ///
    /// # Panics
    /// When the answer is not 202.
    pub async fn predict(&self, rows: &Value) -> String {
        let answer =
            self.try_predict(rows, &[]).await.unwrap_or_else(|error| panic!("POST /predict: {error}"));
        assert_eq!(answer.status, 202, "POST /predict answered: {}", answer.text());
        answer.json()["job_id"].as_str().expect("job_id is a string").to_owned()
    }

    /// The body of `GET /job/{id}`.
    ///
    /// # Panics
    /// When the answer is not 200.
    pub async fn job(&self, id: &str) -> Value {
        let answer = self.get(&format!("/job/{id}")).await;
        assert_eq!(answer.status, 200, "GET /job/{id} answered: {}", answer.text());
        answer.json()
    }

    /// Polls `GET /job/{id}` until the job is completed, failed or cancelled; returns its body. Answers other
    /// than 200 and lost connections count as "not yet", so that a test may break the service meanwhile.
    ///
    /// # Panics
    /// When the job is not finished after `within`; the text has the last answer.
    pub async fn finished(&self, id: &str, within: Duration) -> Value {
        let finished = poll(within, || async {
            match self.try_get(&format!("/job/{id}")).await {
                Ok(answer) if answer.status == 200 && is_terminal(&answer.json()) => Ok(answer.json()),
                Ok(answer) => Err(format!("{} {}", answer.status, answer.text())),
                Err(error) => Err(error.to_string()),
            }
        });
        finished.await.unwrap_or_else(|gave_up| panic!("waited for job {id} to finish, {gave_up}"))
    }
}

/// Whether the body of `GET /job/{id}` says the job has its outcome.
#[must_use]
pub fn is_terminal(job: &Value) -> bool {
    job["status"].as_str().is_some_and(|status| TERMINAL.contains(&status))
}

/// Sends bytes on a plain connection and returns all that comes back until the server closes it or says
/// nothing for 2 s. Send `Connection: close` in a well-formed request, so that the test need not wait for the
/// silence.
///
/// # Panics
/// When no connection can be made. A connection that breaks later just ends the answer.
pub async fn raw(addr: &str, bytes: &[u8]) -> Vec<u8> {
    raw_within(addr, bytes, Duration::from_secs(2)).await
}

/// [`raw`] with another length of the silence that ends the answer.
pub async fn raw_within(addr: &str, bytes: &[u8], silence: Duration) -> Vec<u8> {
    let stream =
        TcpStream::connect(addr).await.unwrap_or_else(|error| panic!("cannot connect to {addr}: {error}"));
    said_and_heard(stream, bytes, silence).await
}

/// [`raw`] over TLS, with a server whose certificate is from this authority.
///
/// # Panics
/// When no secured connection can be made.
pub async fn raw_secured(addr: &str, authority: &Authority, bytes: &[u8]) -> Vec<u8> {
    said_and_heard(authority.connect(addr).await, bytes, Duration::from_secs(2)).await
}

async fn said_and_heard(stream: impl AsyncRead + AsyncWrite, bytes: &[u8], silence: Duration) -> Vec<u8> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut answer = Vec::new();
    let read = async { while let Ok(Ok(1..)) = timeout(silence, reader.read_buf(&mut answer)).await {} };
    let write = async {
        // A server that refuses a request early stops reading it: its answer is what matters.
        let _ = writer.write_all(bytes).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = read => {}
        () = write => {}
    }
    answer
}

async fn whole(response: Response<Incoming>) -> Result<Answer, NoAnswer> {
    let (parts, body) = response.into_parts();
    let body =
        body.collect().await.map_err(|error| NoAnswer::Unknown(format!("answer cut short: {error}")))?;
    Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body: body.to_bytes() })
}

impl From<legacy::Error> for NoAnswer {
    fn from(error: legacy::Error) -> Self {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        let text = format!("{error}{cause}");
        if error.is_connect() { Self::NotSent(text) } else { Self::Unknown(text) }
    }
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSent(why) => write!(f, "not sent ({why})"),
            Self::Unknown(why) => write!(f, "sent, no answer ({why})"),
        }
    }
}

impl std::error::Error for NoAnswer {}
