//! The HTTP client of the worker: HTTP/1.1, with TLS by rustls. Follows no redirects, reads no proxy settings from the environment, and
//! knows nothing of models.

use std::{
    io,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, Response, Uri,
    body::{Body as _, Bytes, Incoming},
};
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{net::TcpStream, time::timeout};
use tower::Service;

/// Connections that are idle for longer are closed, before most servers would: gunicorn closes them after two seconds, uvicorn and Node
/// after five. A server that closes a connection just when a request arrives may or may not have seen the request.
const IDLE: Duration = Duration::from_secs(1);
/// Idle connections to a server. A worker makes no more calls at a time to one.
const MOST_IDLE: usize = 64;
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// A client. Clones share its connections.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    requests: legacy::Client<Connector, Full<Bytes>>,
    connector: Connector,
}

/// How connections are opened.
#[derive(Clone, Debug)]
pub(crate) struct Connect {
    /// For `https`.
    pub(crate) tls: ClientConfig,
    /// The name in the server's certificate, if it is not the host of the URL.
    pub(crate) name: Option<ServerName<'static>>,
    /// Longest time until a connection is open, TLS included.
    pub(crate) timeout: Duration,
}

/// The rest of a body was not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unread {
    /// It is larger than allowed.
    #[error("the body is larger than {0} bytes")]
    TooLarge(usize),
    /// It broke off.
    #[error("the body broke off")]
    Broken(#[source] hyper::Error),
}

impl Client {
    /// Connects when the first request is sent.
    pub(crate) fn new(connect: Connect) -> Self {
        let connector = Connector::new(connect);
        let requests = legacy::Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(MOST_IDLE)
            .pool_timer(TokioTimer::new())
            .build(connector.clone());
        Self { requests, connector }
    }

    /// Sends a request. Its URI is absolute. Dropping the future closes the connection.
    pub(crate) async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, legacy::Error> {
        self.requests.request(request).await
    }

    /// Opens a connection, and closes it.
    pub(crate) async fn connect(&self, uri: Uri) -> Result<(), io::Error> {
        self.connector.clone().call(uri).await.map(drop)
    }
}

/// Reads a whole body of at most `most` bytes.
pub(crate) async fn read(mut body: Incoming, most: usize) -> Result<Vec<u8>, Unread> {
    let declared = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if declared > most {
        return Err(Unread::TooLarge(most));
    }
    let mut bytes = Vec::with_capacity(declared);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(Unread::Broken)?;
        // Any other frame is a trailer.
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > most {
            return Err(Unread::TooLarge(most));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

/// Reads the first bytes of a body, as far as they arrive.
pub(crate) async fn read_start(mut body: Incoming, most: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < most
        && let Some(Ok(frame)) = body.frame().await
    {
        bytes.extend(frame.into_data().unwrap_or_default().iter().take(most - bytes.len()));
    }
    bytes
}

/// Opens connections in time.
#[derive(Clone, Debug)]
struct Connector {
    inner: HttpsConnector<HttpConnector>,
    timeout: Duration,
}

impl Connector {
    fn new(Connect { tls, name, timeout }: Connect) -> Self {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_keepalive(Some(KEEP_ALIVE));
        let https = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
        let https = match name {
            Some(name) => https.with_server_name_resolver(FixedServerNameResolver::new(name)),
            None => https,
        };
        Self { inner: https.enable_http1().wrap_connector(http), timeout }
    }
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.poll_ready(context).map_err(io::Error::other)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (connecting, limit) = (self.inner.call(uri), self.timeout);
        Box::pin(async move {
            let late = || io::Error::new(io::ErrorKind::TimedOut, "no connection in time");
            let connected = timeout(limit, connecting).await.map_err(|_| late())?;
            connected.map_err(io::Error::other)
        })
    }
}
