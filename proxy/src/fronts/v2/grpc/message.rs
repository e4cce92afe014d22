//! Messages in the bodies of calls. A call here has one message in each direction: a byte that says whether it is compressed, its
//! length in four bytes, and the message (gRPC over HTTP2, "Length-Prefixed-Message").

use std::future::ready;

use axum::{
    body::{Body, Bytes},
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, header::CONTENT_TYPE},
    response::Response,
};
use http_body_util::BodyExt as _;
use prost::Message;
use tonic::Status;

use crate::{
    error::{ApiError, CallError},
    http::{
        answer::paid,
        bodies::Bodies,
        budget::{Meter, Share},
        headers,
    },
};

/// The bytes before a message.
const PREFIX: usize = 5;
const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const TYPE: &str = "application/grpc";

/// Whether a request is one of gRPC, and not compressed.
fn check(headers: &HeaderMap) -> Result<(), ApiError> {
    let media_type = headers::text(headers, &CONTENT_TYPE).unwrap_or_default();
    let rest = media_type.strip_prefix(TYPE);
    if !rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['+', ';'])) {
        return Err(CallError::NotGrpc.into());
    }
    let is_plain = |encoding: &HeaderValue| encoding == "identity";
    if headers.get(ENCODING).is_none_or(is_plain) { Ok(()) } else { Err(ApiError::Compressed) }
}

/// The only message of a body.
fn only(body: &[u8]) -> Result<&[u8], ApiError> {
    let wrong = |why: String| ApiError::from(CallError::NotMessage(why));
    let Some(([flag, length @ ..], message)) = body.split_first_chunk::<PREFIX>() else {
        return Err(wrong("the body has no message".to_owned()));
    };
    if *flag != 0 {
        return Err(ApiError::Compressed);
    }
    let length = u32::from_be_bytes(*length) as usize;
    if message.len() == length {
        return Ok(message);
    }
    Err(wrong(format!("the body must have one message of {length} bytes, but has {}", message.len())))
}

/// Passes the message of a call to `read`. Returns what `read` returns, and the memory that the message holds.
pub(super) async fn read<T: Send + 'static>(
    headers: &HeaderMap,
    body: Body,
    bodies: &Bodies,
    read: impl FnOnce(&[u8], &mut Meter) -> Result<T, ApiError> + Send + 'static,
) -> Result<(T, Option<Share>), ApiError> {
    check(headers)?;
    bodies.read(body, move |body, meter| read(only(body)?, meter)).await
}

/// Reads a message that is never large.
pub(super) async fn small<M: Message + Default + 'static>(
    request: Request,
    bodies: &Bodies,
) -> Result<M, ApiError> {
    let (head, body) = request.into_parts();
    let (message, _) = read(&head.headers, body, bodies, |message, _| decoded(message)).await?;
    Ok(message)
}

/// Decodes a message.
pub(super) fn decoded<M: Message + Default>(message: &[u8]) -> Result<M, ApiError> {
    M::decode(message).map_err(|error| CallError::NotMessage(error.to_string()).into())
}

/// An answer with this message. Its memory is reserved when it is sent.
pub(super) fn answer(message: &impl Message) -> Response {
    let message = message.encode_to_vec();
    framed(Response::new(Body::from([&prefix(message.len()), message.as_slice()].concat())))
}

/// An answer with a message in parts, whose memory is reserved.
pub(super) fn answer_in_parts(parts: Vec<Bytes>) -> Response {
    let prefix = prefix(parts.iter().map(Bytes::len).sum());
    framed(paid(std::iter::once(Bytes::copy_from_slice(&prefix)).chain(parts)))
}

/// No message is longer than memory for it can be.
fn prefix(length: usize) -> [u8; PREFIX] {
    let [a, b, c, d] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    [0, a, b, c, d]
}

/// The answer of a call that succeeded.
fn framed(answer: Response) -> Response {
    let trailers = HeaderMap::from_iter([(Status::GRPC_STATUS, HeaderValue::from_static("0"))]);
    let mut answer = answer.map(|body| Body::new(body.with_trailers(ready(Some(Ok(trailers))))));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(TYPE));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(body: &[u8]) -> String {
        match only(body) {
            Err(ApiError::Call(CallError::NotMessage(why))) => why,
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn a_body_has_one_message() {
        assert_eq!(only(b"\0\0\0\0\x02ab").unwrap(), b"ab");
        assert_eq!(only(b"\0\0\0\0\0").unwrap(), b"");
        assert!(matches!(only(b"\x01\0\0\0\x02ab"), Err(ApiError::Compressed)));
        assert_eq!(refused(b""), "the body has no message");
        assert_eq!(refused(b"\0\0\0\x02"), "the body has no message");
        assert_eq!(
            refused(b"\0\xff\0\0\x02ab"),
            "the body must have one message of 4278190082 bytes, but has 2"
        );
        let two = b"\0\0\0\0\x01a\0\0\0\0\x01b";
        assert_eq!(refused(two), "the body must have one message of 1 bytes, but has 7");
    }

    #[test]
    fn only_plain_messages_of_grpc_are_read() {
        let given = |media_type: &'static str, encoding: &'static str| {
            let headers = [
                (CONTENT_TYPE, HeaderValue::from_static(media_type)),
                (ENCODING, HeaderValue::from_static(encoding)),
            ];
            check(&headers.into_iter().collect())
        };
        for good in ["application/grpc", "application/grpc+proto", "application/grpc;x=y"] {
            assert!(given(good, "identity").is_ok(), "{good}");
        }
        for bad in ["application/grpc-web", "application/json", ""] {
            assert!(matches!(given(bad, "identity"), Err(ApiError::Call(CallError::NotGrpc))), "{bad}");
        }
        assert!(matches!(given(TYPE, "gzip"), Err(ApiError::Compressed)));
    }
}
