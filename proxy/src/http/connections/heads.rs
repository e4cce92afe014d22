//! Checks the heads of requests on their way to the HTTP library, which accepts more than RFC 9112 allows: lines that end
//! with LF alone, and transfer codings that it does not decode. Two programs that read such a head differently see
//! different requests. A refused head is replaced by a byte that the library refuses, so what came before it is answered.

mod framing;

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub(crate) use self::framing::Scanner;
use super::slots::Place;
use crate::error::ApiError;

/// Wherever it stands in a head, the library refuses it, and it ends the head.
const POISON: &[u8] = b"\0\r\n\r\n";

/// Why a head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A line ends with LF alone.
    BareLineFeed,
    /// A transfer coding other than chunked.
    TransferCoding,
    /// A header that frames the body is longer than any that makes sense.
    Framing,
}

/// A connection, read up to the first head that is refused.
pub(super) struct Heads<S> {
    stream: S,
    place: Arc<Place>,
    scanner: Scanner,
    fault: Option<Fault>,
    poison: &'static [u8],
}

impl<S> Heads<S> {
    pub(super) fn new(stream: S, place: Arc<Place>) -> Self {
        Self { stream, place, scanner: Scanner::default(), fault: None, poison: POISON }
    }

    /// The answer to the refused head, if there was one.
    pub(super) fn error(&self) -> Option<ApiError> {
        Some(match self.fault? {
            Fault::BareLineFeed => ApiError::BareLineFeed,
            Fault::TransferCoding => ApiError::UnknownTransferCoding,
            Fault::Framing => ApiError::MalformedRequest,
        })
    }

    /// Gives the library as much of the poison as fits; then the connection is at its end.
    fn refuse(&mut self, buffer: &mut ReadBuf<'_>) {
        let (now, later) = self.poison.split_at(self.poison.len().min(buffer.remaining()));
        buffer.put_slice(now);
        self.poison = later;
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Heads<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.fault.is_some() {
            self.refuse(buffer);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Err((at, fault)) = self.scanner.scan(&buffer.filled()[before..]) {
            buffer.set_filled(before + at);
            self.fault = Some(fault);
            self.refuse(buffer);
        }
        if read.is_ready() {
            self.place.note_head(self.scanner.is_in_head());
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heads<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
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
