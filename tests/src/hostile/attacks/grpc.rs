//! Calls over gRPC, with a client that breaks what rules it likes.

use std::future::poll_fn;
use std::net::Ipv4Addr;
use std::time::Instant;

use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, SendStream};
use hyper::http::Request;
use prost::Message as _;
use prost::bytes::Bytes;
use tepal_proto::open_inference::ModelInferRequest;
use tepal_proto::open_inference::model_infer_request::InferInputTensor;
use tokio::task::{JoinSet, yield_now};
use tonic::{Code, Status};

use super::super::field::Field;
use super::super::wire::{Answer, Wire};

const INFER: &str = "http://tepal/inference.GRPCInferenceService/ModelInfer";
/// What a connection begins with (RFC 9113, section 3.4), an empty frame of settings, and headers that do not end here.
const HEAD: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x01\x01\0\0\0\0\x01\x82";
/// As many as a connection may have.
const AT_A_TIME: usize = 100;

/// Opens a connection; `None` if that fails.
async fn open(field: &Field, from: Ipv4Addr) -> Option<SendRequest<Bytes>> {
    let stream = field.open_grpc(from).await?;
    let Ok((send, connection)) = h2::client::handshake(stream).await else {
        field.tally.note("connection closed");
        return None;
    };
    tokio::spawn(connection);
    Some(send)
}

/// Begins a call; `None` if the connection is closed.
async fn begin(field: &Field, send: &SendRequest<Bytes>) -> Option<(ResponseFuture, SendStream<Bytes>)> {
    let request = Request::post(INFER).header("content-type", "application/grpc").header("te", "trailers");
    let mut send = match send.clone().ready().await {
        Ok(send) => send,
        Err(_) => {
            field.tally.note("connection closed");
            return None;
        }
    };
    field.tally.sent(100);
    send.send_request(request.body(()).expect("a request"), false).ok()
}

/// Waits for the answer of a call, and counts it.
async fn count(field: &Field, from: Ipv4Addr, sent: Instant, answer: ResponseFuture) {
    match read(answer).await {
        Ok(answer) => field.tally.answered(from, sent, 1, &answer),
        Err(_) => field.tally.note("call reset"),
    }
}

async fn read(answer: ResponseFuture) -> Result<Answer, h2::Error> {
    let (head, mut body) = answer.await?.into_parts();
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        bytes.extend_from_slice(&data);
    }
    let mut metadata = head.headers;
    metadata.extend(body.trailers().await?.unwrap_or_default());
    let head = metadata.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    let status = Status::from_header_map(&metadata).unwrap_or_else(|| Status::unknown("no status"));
    if status.code() == Code::Ok {
        return Ok(Answer { status: 200, head, body: bytes });
    }
    let (status, word) = as_http(&status);
    Ok(Answer { status, head, body: format!(r#"{{"code":"{word}"}}"#).into() })
}

/// What a client of HTTP would be answered.
fn as_http(status: &Status) -> (u16, &'static str) {
    match status.code() {
        Code::ResourceExhausted if status.message().starts_with("Too many requests") => (429, "rate_limited"),
        Code::ResourceExhausted if status.message().starts_with("The memory") => (503, "overloaded"),
        Code::ResourceExhausted => (413, "payload_too_large"),
        Code::InvalidArgument => (400, "invalid_input"),
        Code::DeadlineExceeded => (408, "request_timeout"),
        Code::Unavailable => (503, "service_unavailable"),
        _ => (500, "internal_error"),
    }
}

fn message() -> Bytes {
    let input = InferInputTensor {
        name: "input".to_owned(),
        datatype: "FP32".to_owned(),
        shape: vec![1, 4],
        ..InferInputTensor::default()
    };
    let elements = [5.1_f32, 3.5, 1.4, 0.2].iter().flat_map(|element| element.to_le_bytes());
    let request = ModelInferRequest {
        model_name: "iris".to_owned(),
        inputs: vec![input],
        raw_input_contents: vec![elements.collect::<Vec<u8>>().into()],
        ..ModelInferRequest::default()
    };
    let message = request.encode_to_vec();
    let length = u32::try_from(message.len()).expect("a short message").to_be_bytes();
    [&[0], length.as_slice(), &message].concat().into()
}

/// As many calls at a time as the connections may have.
pub(super) async fn calls(field: &Field) {
    let message = message();
    field
        .each_address(5, |field, from| {
            let message = message.clone();
            async move {
                while !field.is_over() {
                    let Some(send) = open(&field, from).await else { continue };
                    let mut all = JoinSet::new();
                    while let Some((answer, mut body)) = begin(&field, &send).await {
                        field.tally.sent(message.len());
                        let _ = body.send_data(message.clone(), true);
                        let (field, sent) = (field.clone(), Instant::now());
                        all.spawn(async move { count(&field, from, sent, answer).await });
                        if all.len() >= AT_A_TIME {
                            all.join_next().await;
                        }
                    }
                }
            }
        })
        .await;
}

/// Messages without an end.
pub(super) async fn messages(field: &Field) {
    field
        .each_address(20, |field, from| async move {
            while !field.is_over() {
                let Some(send) = open(&field, from).await else { continue };
                while let Some((answer, body)) = begin(&field, &send).await {
                    let sent = Instant::now();
                    tokio::select! {
                        () = count(&field, from, sent, answer) => {}
                        () = endless(&field, body) => {}
                    }
                }
            }
        })
        .await;
}

async fn endless(field: &Field, mut body: SendStream<Bytes>) {
    let mut next = Bytes::from_static(&[0, 255, 255, 255, 255]);
    loop {
        body.reserve_capacity(next.len());
        let Some(Ok(room)) = poll_fn(|context| body.poll_capacity(context)).await else { break };
        let piece = next.slice(..next.len().min(room));
        field.tally.sent(piece.len());
        if body.send_data(piece, false).is_err() {
            break;
        }
        next = Bytes::from_static(&[b'x'; 1 << 14]);
    }
    // The answer says why.
    std::future::pending().await
}

/// Headers without an end.
pub(super) async fn heads(field: &Field) {
    let more = [&b"\0\x40\0\x09\0\0\0\0\x01"[..], &[0x82; 1 << 14]].concat();
    field
        .each_address(20, |field, from| {
            let more = more.clone();
            async move {
                while !field.is_over() {
                    let Some(stream) = field.open_grpc(from).await else { continue };
                    let mut wire = Wire::new(stream);
                    field.tally.note("begun");
                    let mut is_open = wire.send(HEAD).await.is_ok();
                    while is_open {
                        field.tally.sent(more.len());
                        is_open = wire.send(&more).await.is_ok();
                    }
                    field.tally.note("connection closed");
                }
            }
        })
        .await;
}

/// Calls that are reset as soon as they are sent.
pub(super) async fn resets(field: &Field) {
    field
        .each_address(2, |field, from| async move {
            while !field.is_over() {
                let Some(send) = open(&field, from).await else { continue };
                while let Some((_, mut body)) = begin(&field, &send).await {
                    body.send_reset(Reason::CANCEL);
                    field.tally.note("reset");
                    yield_now().await;
                }
            }
        })
        .await;
}
