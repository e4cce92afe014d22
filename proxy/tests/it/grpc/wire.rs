//! A client of HTTP/2 that sends the frames that a test wants.

use axum::http::{HeaderMap, Request};
use h2::client::{ResponseFuture, SendRequest};
use prost::{Message as _, bytes::Bytes};
use tepal_proto::open_inference::ModelInferRequest;
use tokio::{net::TcpStream, task::JoinHandle, time::timeout};
use tonic::Status;

use super::Site;
use crate::{expect::REQUEST_ID, gateway::SOON};

pub(super) const INFER: &str = "http://tepal/inference.GRPCInferenceService/ModelInfer";
pub(super) const LIVE: &str = "http://tepal/inference.GRPCInferenceService/ServerLive";

/// A connection of HTTP/2.
pub(super) struct Wire {
    pub(super) send: SendRequest<Bytes>,
    /// Ends with the connection.
    pub(super) connection: JoinHandle<Result<(), h2::Error>>,
}

impl Wire {
    pub(super) async fn open(site: &Site) -> Self {
        Self::with(site, &h2::client::Builder::new()).await
    }

    pub(super) async fn with(site: &Site, builder: &h2::client::Builder) -> Self {
        let stream = TcpStream::connect(&site.addr).await.unwrap();
        let (send, connection) = builder.handshake(stream).await.unwrap();
        Self { send, connection: tokio::spawn(connection) }
    }

    /// Opens a stream for a call, whose body is not complete.
    pub(super) async fn begin(&mut self, uri: &str) -> (ResponseFuture, h2::SendStream<Bytes>) {
        self.send = self.send.clone().ready().await.unwrap();
        self.send.send_request(call(uri, &[]), false).unwrap()
    }

    /// The status of a whole call.
    pub(super) async fn ask(
        &mut self,
        uri: &str,
        lines: &[(&str, &str)],
        message: &[u8],
    ) -> Result<String, h2::Error> {
        self.send = self.send.clone().ready().await?;
        let (answer, mut body) = self.send.send_request(call(uri, lines), false)?;
        body.send_data(framed(message), true)?;
        status_of(answer).await
    }

    /// The status of an inference with these lines of metadata, whose deadlines this client does not know.
    pub(super) async fn infer(&mut self, message: &ModelInferRequest, lines: &[(&str, &str)]) -> Status {
        self.send = self.send.clone().ready().await.unwrap();
        let lines = [lines, &[("x-request-id", REQUEST_ID)]].concat();
        let (answer, mut body) = self.send.send_request(call(INFER, &lines), false).unwrap();
        body.send_data(framed(&message.encode_to_vec()), true).unwrap();
        let (_, metadata) = reply_of(answer).await.unwrap();
        Status::from_header_map(&metadata).unwrap()
    }

    /// Waits until the proxy ends the connection. An error if it does not say goodbye.
    pub(super) async fn ended(self) -> Result<(), h2::Error> {
        // Without it, the client would end the connection itself.
        let _open = self.send;
        timeout(SOON, self.connection).await.unwrap().unwrap()
    }
}

pub(super) fn call(uri: &str, lines: &[(&str, &str)]) -> Request<()> {
    let request = Request::post(uri).header("content-type", "application/grpc").header("te", "trailers");
    lines.iter().fold(request, |request, (name, value)| request.header(*name, *value)).body(()).unwrap()
}

pub(super) fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0], length.as_slice(), message].concat().into()
}

/// The code of an answer, or its status where it has none.
pub(super) async fn status_of(answer: ResponseFuture) -> Result<String, h2::Error> {
    let (status, metadata) = reply_of(answer).await?;
    Ok(metadata.get("grpc-status").map_or(status, |code| code.to_str().unwrap().to_owned()))
}

/// The status of an answer, and all of its metadata.
async fn reply_of(answer: ResponseFuture) -> Result<(String, HeaderMap), h2::Error> {
    let (head, mut body) = timeout(SOON, answer).await.unwrap()?.into_parts();
    while let Some(data) = body.data().await {
        body.flow_control().release_capacity(data?.len())?;
    }
    let mut metadata = head.headers;
    metadata.extend(body.trailers().await?.unwrap_or_default());
    Ok((head.status.as_str().to_owned(), metadata))
}
