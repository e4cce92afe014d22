//! Requests that are no HTTP, or too long for it, are answered by the HTTP library itself, with a bare status. This
//! turns those answers into problems like all others, on their way to the socket, and counts the requests.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{heads::Heads, slots::Place};
use crate::{
    edge::rate_limit::Account,
    error::ApiError,
    http::{
        headers::{self, REQUEST_ID},
        security_headers::SecurityHeaders,
    },
};

/// What a client that speaks HTTP/2 without asking sends first (RFC 9113, section 3.4), as far as it is a request of HTTP/1.1
/// with another version.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";

/// A connection. Everything but a bare refusal passes unchanged.
pub(super) struct Refusals<S> {
    stream: Heads<S>,
    headers: SecurityHeaders,
    /// Where refused requests are counted.
    account: Option<Account>,
    /// How much of [`HTTP2`] has arrived; `None` when the client sends something else.
    preface: Option<usize>,
    /// What is left to write of a refusal.
    refusal: Vec<u8>,
    written: usize,
}

impl<S: AsyncWrite + Unpin> Refusals<S> {
    pub(super) fn new(
        stream: S,
        place: Arc<Place>,
        headers: SecurityHeaders,
        account: Option<Account>,
    ) -> Self {
        let stream = Heads::new(stream, place);
        Self { stream, headers, account, preface: Some(0), refusal: Vec::new(), written: 0 }
    }

    /// The problem instead of a bare refusal.
    fn problem_for(&self, answer: &[u8]) -> Option<Vec<u8>> {
        // What follows HTTP/2's preface is no head.
        let known = self.stream.error().filter(|_| self.preface != Some(HTTP2.len()));
        let (mut error, head) = refused(answer, known)?;
        let mut more = HeaderMap::new();
        if let Some(budget) = self.account.as_ref().map(Account::spend) {
            budget.tell(&mut more);
            error = budget.excess.map_or(error, ApiError::RateLimited);
        }
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

/// What the HTTP library refuses with these bytes: `known`, or what the status says; and its head. Our own errors have
/// bodies, so an empty 4xx is never one of ours.
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

/// The problem with the lines of the library's `head` and these `more`.
fn problem(error: &ApiError, head: &str, mut more: HeaderMap, headers: SecurityHeaders) -> Option<Vec<u8>> {
    let id = headers::request_id(&HeaderMap::new());
    let body = error.problem("", id.to_str().unwrap_or_default());
    more.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    more.insert(CONTENT_LENGTH, body.len().into());
    more.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    more.insert(REQUEST_ID, id);
    headers.add_to(&mut more);
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
            match self.problem_for(bytes) {
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
