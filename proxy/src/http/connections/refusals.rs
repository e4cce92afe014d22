//! The HTTP library answers requests that are not HTTP, or too long, with a bare status. This replaces those answers by problems,
//! like all others, on their way to the socket, and counts the requests.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{heads::Heads, slots::Slot};
use crate::{
    error::ApiError,
    http::{headers, peer::Peer, security_headers::SecurityHeaders},
};

/// Counts a request whose head is rejected. Returns the error of the answer, and its headers.
pub(crate) type RejectHead = dyn Fn(Peer, ApiError) -> (ApiError, HeaderMap) + Send + Sync;

/// The header with the id of a request.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The connection preface of HTTP/2 (RFC 9113, section 3.4), as far as it looks like a request of HTTP/1.1 with another version.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";

/// A connection. Everything but the bare statuses passes unchanged.
pub(super) struct Refusals<S> {
    stream: Heads<S>,
    headers: SecurityHeaders,
    peer: Peer,
    reject: Arc<RejectHead>,
    /// How many bytes of [`HTTP2`] have arrived; `None` if the client sends something else.
    preface: Option<usize>,
    /// The problem that is being written.
    refusal: Vec<u8>,
    written: usize,
}

impl<S: AsyncWrite + Unpin> Refusals<S> {
    pub(super) fn new(
        stream: S,
        slot: Arc<Slot>,
        headers: SecurityHeaders,
        peer: Peer,
        reject: Arc<RejectHead>,
    ) -> Self {
        let stream = Heads::new(stream, slot);
        Self { stream, headers, peer, reject, preface: Some(0), refusal: Vec::new(), written: 0 }
    }

    /// The problem for a bare status.
    fn problem_for(&self, answer: &[u8]) -> Option<Vec<u8>> {
        // The bytes after HTTP/2's preface are not a head.
        let known = self.stream.error().filter(|_| self.preface != Some(HTTP2.len()));
        let (error, head) = refused(answer, known)?;
        let (error, more) = (self.reject)(self.peer, error);
        problem(&error, head, more, self.headers)
    }

    fn poll_refusal(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.refusal.len() {
            let rest = &self.refusal[self.written..];
            match ready!(Pin::new(&mut self.stream).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.written += count,
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// The error that the HTTP library reports with these bytes, and their head: `known`, or the one of the status. The proxy's own
/// errors have bodies, so an empty 4xx is always the library's.
fn refused(answer: &[u8], known: Option<ApiError>) -> Option<(ApiError, &str)> {
    if !answer.starts_with(b"HTTP/1.1 4") {
        return None;
    }
    let head = std::str::from_utf8(answer).ok()?;
    let is_bare = head.ends_with("\r\n\r\n") && head.lines().any(|line| line == "content-length: 0");
    let error = match head.get(9..12).filter(|_| is_bare)?.parse().ok()? {
        StatusCode::BAD_REQUEST => known.unwrap_or(ApiError::MalformedRequest),
        StatusCode::URI_TOO_LONG => ApiError::UriTooLong,
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => ApiError::HeadersTooLarge,
        _ => return None,
    };
    Some((error, head))
}

/// The problem, with the lines of the library's `head` and these headers.
fn problem(error: &ApiError, head: &str, mut more: HeaderMap, security: SecurityHeaders) -> Option<Vec<u8>> {
    let body = error.problem("", headers::text(&more, &REQUEST_ID).unwrap_or_default());
    more.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    more.insert(CONTENT_LENGTH, body.len().into());
    more.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    security.add_to(&mut more);
    if let Some(seconds) = error.retry_after() {
        more.insert(RETRY_AFTER, seconds.into());
    }
    let status = StatusCode::from_u16(error.status()).ok()?;
    let mut problem = format!("HTTP/1.1 {status}\r\n").into_bytes();
    for line in head.lines().skip(1).filter(|line| !line.is_empty() && *line != "content-length: 0") {
        problem.extend_from_slice(line.as_bytes());
        problem.extend_from_slice(b"\r\n");
    }
    for (name, value) in &more {
        problem.extend_from_slice(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    problem.extend_from_slice(b"\r\n");
    problem.extend_from_slice(&body);
    Some(problem)
}

impl<S: AsyncRead + Unpin> AsyncRead for Refusals<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Some(seen) = self.preface {
            let (preface, left) = after_preface(seen, &buffer.filled()[before..]);
            self.preface = preface;
            buffer.set_filled(buffer.filled().len() - left);
        }
        read
    }
}

/// How many bytes of [`HTTP2`] have arrived with these bytes, after the `seen` ones before them, and how many bytes follow the
/// preface. The HTTP library rejects the preface as a request of the wrong version. But it closes without an answer when it sees
/// more of HTTP/2, so the bytes that follow are dropped.
fn after_preface(seen: usize, bytes: &[u8]) -> (Option<usize>, usize) {
    let expected = &HTTP2[seen..];
    let length = bytes.len().min(expected.len());
    if bytes[..length] != expected[..length] {
        return (None, 0);
    }
    (Some(seen + length), bytes.len() - length)
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Refusals<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.refusal.is_empty() {
            match self.problem_for(bytes) {
                Some(problem) => self.refusal = problem,
                None => return Pin::new(&mut self.stream).poll_write(context, bytes),
            }
        }
        // The library closes the connection after the status, so nothing else is written.
        ready!(self.poll_refusal(context))?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match parts.iter().find(|part| !part.is_empty()) {
            Some(first) if first.starts_with(b"HTTP/1.1 4") => self.poll_write(context, first),
            _ => Pin::new(&mut self.stream).poll_write_vectored(context, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
