//! How a connection's bytes flow: who takes nothing of an answer for too long is cut off, and what all clients together
//! send as heads of requests is bounded.

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

use super::slots::Place;

/// Bytes that are read at a time: what the HTTP library makes room for at first.
const PIECE: usize = 8 << 10;

/// A connection that gives its client so much time to take a part of an answer.
pub(super) struct Patience<S> {
    stream: S,
    place: Arc<Place>,
    limit: Duration,
    /// Runs while there is something to write that the client does not take.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<S> Patience<S> {
    pub(super) fn new(stream: S, place: Arc<Place>, limit: Duration) -> Self {
        Self { stream, place, limit, deadline: None }
    }

    /// Lets a write pass, and looks at the clock when it waits.
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

impl<S: AsyncRead + Unpin> AsyncRead for Patience<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = read_piece(Pin::new(&mut self.stream), context, buffer);
        if self.place.receives(buffer.filled().len() - before) {
            read
        } else {
            Poll::Ready(Err(io::ErrorKind::QuotaExceeded.into()))
        }
    }
}

/// Reads at most [`PIECE`]. The HTTP library reads into a buffer that it doubles each time it was filled, and keeps: thousands
/// of clients in the middle of a large body would hold ten times as much.
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

impl<S: AsyncWrite + Unpin> AsyncWrite for Patience<S> {
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
