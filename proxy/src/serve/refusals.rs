//! Requests that are no HTTP, or too long for it, are answered by the HTTP library itself, with a bare status. This
//! turns those answers into problems like all others, on their way to the socket.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::http::{HeaderMap, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{heads::Heads, places::Place};
use crate::{error::ApiError, extract, security_headers::SecurityHeaders};

/// What a client that speaks HTTP/2 without asking sends first (RFC 9113, section 3.4), as far as it is a request of HTTP/1.1
/// with another version.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";

/// A connection. Everything but a bare refusal passes unchanged.
pub(super) struct Refusals<S> {
    stream: Heads<S>,
    headers: SecurityHeaders,
    /// How much of [`HTTP2`] has arrived; `None` when the client sends something else.
    preface: Option<usize>,
    /// What is left to write of a refusal.
    refusal: Vec<u8>,
    written: usize,
}

impl<S: AsyncWrite + Unpin> Refusals<S> {
    pub(super) fn new(stream: S, place: Arc<Place>, headers: SecurityHeaders) -> Self {
        let stream = Heads::new(stream, place);
        Self { stream, headers, preface: Some(0), refusal: Vec::new(), written: 0 }
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

/// The problem instead of a bare refusal: `known`, or what the status says. Our own errors have bodies, so an empty 4xx is
/// never one of ours.
fn problem_for(answer: &[u8], known: Option<ApiError>, headers: SecurityHeaders) -> Option<Vec<u8>> {
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
    let id = extract::request_id(&HeaderMap::new());
    let id = id.to_str().unwrap_or_default();
    let body = error.problem("", id);
    let mut problem = Vec::with_capacity(512);
    let status = StatusCode::from_u16(error.status()).ok()?;
    problem.extend_from_slice(format!("HTTP/1.1 {status}\r\n").as_bytes());
    for line in head.lines().skip(1).filter(|line| !line.is_empty() && *line != "content-length: 0") {
        problem.extend_from_slice(line.as_bytes());
        problem.extend_from_slice(b"\r\n");
    }
    let more = format!(
        "content-type: application/problem+json\r\ncontent-length: {}\r\ncache-control: no-store\r\nx-request-id: {id}\r\n{}\r\n",
        body.len(),
        headers.lines(),
    );
    problem.extend_from_slice(more.as_bytes());
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

/// How much of [`HTTP2`] has arrived with these bytes, of which `seen` came before them, and how many bytes follow it. The
/// HTTP library refuses what it takes for a request with the wrong version, but closes without an answer when it sees
/// more of HTTP/2: so what follows is dropped.
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
            // What follows HTTP/2's preface is no head.
            let known = self.stream.error().filter(|_| self.preface != Some(HTTP2.len()));
            match problem_for(bytes, known, self.headers) {
                Some(problem) => self.refusal = problem,
                None => return Pin::new(&mut self.stream).poll_write(context, bytes),
            }
        }
        // The library closes the connection after a refusal: nothing else is written.
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
