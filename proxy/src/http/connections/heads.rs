//! Checks the heads of requests before the HTTP library reads them. The library accepts more than RFC 9112 allows: lines that end
//! with LF alone, and transfer codings that it does not decode. Two programs that read such a head differently see different
//! requests. A rejected head is replaced by a byte that the library rejects, so the requests before it are answered.

mod framing;

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::framing::Fault;
pub(crate) use self::framing::Scanner;
use super::slots::Slot;
use crate::error::ApiError;

/// The library rejects these bytes at any position in a head, and they end the head.
const POISON: &[u8] = b"\0\r\n\r\n";

/// A connection, read up to the first rejected head.
pub(super) struct Heads<S> {
    stream: S,
    slot: Arc<Slot>,
    scanner: Scanner,
    fault: Option<Fault>,
    poison: &'static [u8],
}

impl<S> Heads<S> {
    pub(super) fn new(stream: S, slot: Arc<Slot>) -> Self {
        Self { stream, slot, scanner: Scanner::default(), fault: None, poison: POISON }
    }

    /// The error of the rejected head, if there was one.
    pub(super) fn error(&self) -> Option<ApiError> {
        Some(match self.fault? {
            Fault::BareLineFeed => ApiError::BareLineFeed,
            Fault::TransferCoding => ApiError::UnknownTransferCoding,
            Fault::Framing => ApiError::MalformedRequest,
        })
    }

    /// Passes as much of the poison to the library as fits. Then the connection ends.
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
            self.slot.note_head(self.scanner.is_in_head());
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
