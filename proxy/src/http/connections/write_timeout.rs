//! The bytes of a connection. A client that reads nothing of its answer for too long is disconnected, and the memory for heads
//! of requests is bounded for all clients together.

use std::{
    future::Future as _,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use super::slots::Slot;

/// Bytes per read: the initial size of the HTTP library's buffer.
const PIECE: usize = 8 << 10;

/// A connection that limits the time in which its client must read a part of an answer.
pub(super) struct WriteTimeout<S> {
    stream: S,
    slot: Arc<Slot>,
    limit: Duration,
    /// Runs while a write waits for the client.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<S> WriteTimeout<S> {
    pub(super) fn new(stream: S, slot: Arc<Slot>, limit: Duration) -> Self {
        Self { stream, slot, limit, deadline: None }
    }

    /// Passes a write on, and checks the time when the write waits.
    fn timed<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.deadline = None;
            return written;
        }
        let limit = self.limit;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(limit)));
        match deadline.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteTimeout<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = read_piece(Pin::new(&mut self.stream), context, buffer);
        if self.slot.receives(buffer.filled().len() - before) {
            read
        } else {
            Poll::Ready(Err(io::ErrorKind::QuotaExceeded.into()))
        }
    }
}

/// Reads at most [`PIECE`]. The HTTP library doubles its buffer each time a read fills it, and keeps it: thousands of clients in
/// the middle of a large body would hold ten times as much.
fn read_piece<S: AsyncRead>(
    stream: Pin<&mut S>,
    context: &mut Context<'_>,
    buffer: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    if buffer.remaining() <= PIECE {
        return stream.poll_read(context, buffer);
    }
    let mut piece = ReadBuf::new(buffer.initialize_unfilled_to(PIECE));
    let read = stream.poll_read(context, &mut piece);
    let count = piece.filled().len();
    buffer.advance(count);
    read
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteTimeout<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.timed(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.timed(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.timed(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = Pin::new(&mut self.stream).poll_shutdown(context);
        self.timed(context, closed)
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, pin::pin};

    use super::*;

    #[tokio::test]
    async fn a_full_buffer_is_never_read_at_once() {
        let sent: Vec<u8> = (0..3 * PIECE + 1).map(|number| number as u8).collect();
        let (mut stream, mut room) = (sent.as_slice(), vec![0; 100 * PIECE]);
        let (mut buffer, mut sizes) = (ReadBuf::new(&mut room), Vec::new());
        while sizes.last() != Some(&0) {
            let before = buffer.filled().len();
            poll_fn(|context| read_piece(pin!(&mut stream), context, &mut buffer)).await.unwrap();
            sizes.push(buffer.filled().len() - before);
        }
        assert_eq!(sizes, [PIECE, PIECE, PIECE, 1, 0]);
        assert_eq!(buffer.filled(), sent);
    }
}
