//! The bytes of a connection. A client that reads nothing of its answer for too long is disconnected, and the memory for heads
//! of requests is bounded for all clients together.

use std::{
    future::Future as _,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep, timeout},
};

use super::{limits::ConnectionLimits, slots::Slot};

/// Bytes per read: the initial size of the HTTP library's buffer.
const PIECE: usize = 8 << 10;
/// Bytes after which the connection lets others go on, even if its client sends or reads more at once.
const BYTES_IN_A_TURN: usize = 16 << 10;

/// A connection that limits the time in which its client must read a part of an answer.
pub(super) struct WriteTimeout<S> {
    /// `None` when there was no memory for what the client sends.
    stream: Option<S>,
    /// `None` for HTTP/2, whose library bounds the heads of each connection.
    slot: Option<Arc<Slot>>,
    limits: ConnectionLimits,
    /// Runs while a write waits for the client.
    deadline: Option<Pin<Box<Sleep>>>,
    /// Bytes in both directions since it last let others go on.
    bytes: usize,
}

impl<S> WriteTimeout<S> {
    pub(super) fn new(stream: S, slot: Option<Arc<Slot>>, limits: ConnectionLimits) -> Self {
        Self { stream: Some(stream), slot, limits, deadline: None, bytes: 0 }
    }

    fn stream(&mut self) -> io::Result<Pin<&mut S>>
    where
        S: Unpin,
    {
        self.stream.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::QuotaExceeded.into())
    }

    /// Waits for another turn after many bytes.
    fn turn(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.bytes < BYTES_IN_A_TURN {
            return Poll::Ready(());
        }
        self.bytes = 0;
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn count(&mut self, written: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(count)) = written {
            self.bytes += count;
        }
    }

    /// Passes a write on, and checks the time when the write waits.
    fn timed<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.deadline = None;
            return written;
        }
        let limit = self.limits.write_timeout;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(limit)));
        match deadline.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// Keeps a connection open without reading, as long as its client may take for a head. A client whose connection is closed opens
/// another one at once, which costs more.
async fn hold(stream: impl Send, slot: Arc<Slot>, limit: Duration) {
    // The slot may be given to another connection sooner.
    let _ = timeout(limit, slot.lost()).await;
    drop(stream);
}

impl<S: AsyncRead + Unpin + Send + 'static> AsyncRead for WriteTimeout<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.turn(context));
        let before = buffer.filled().len();
        let read = read_piece(self.stream()?, context, buffer);
        let count = buffer.filled().len() - before;
        self.bytes += count;
        let Some(slot) = self.slot.clone().filter(|slot| !slot.receives(count)) else { return read };
        if let Some(stream) = self.stream.take() {
            slot.drop_head();
            tokio::spawn(hold(stream, slot, self.limits.header_timeout));
        }
        Poll::Ready(Err(io::ErrorKind::QuotaExceeded.into()))
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
        ready!(self.turn(context));
        let written = self.stream()?.poll_write(context, bytes);
        self.count(&written);
        self.timed(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.turn(context));
        let written = self.stream()?.poll_write_vectored(context, parts);
        self.count(&written);
        self.timed(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.stream()?.poll_flush(context);
        self.timed(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = self.stream()?.poll_shutdown(context);
        self.timed(context, closed)
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, pin::pin};

    use futures_util::FutureExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::super::slots::Slots;
    use super::*;
    use crate::metrics::ConnectionMetrics;

    fn limits(header_timeout: Duration) -> ConnectionLimits {
        let long = Duration::from_secs(60);
        ConnectionLimits {
            most: 1,
            requests: 1,
            waiting: 0,
            leaving: 0,
            header_timeout,
            idle_timeout: long,
            write_timeout: long,
            shutdown_delay: long,
            drain_timeout: long,
        }
    }

    #[tokio::test]
    async fn a_connection_without_memory_for_its_head_stays_open_for_a_while() {
        let slots = Slots::new(10_000, 10_000, 0, ConnectionMetrics::noop());
        let mut others = Vec::new();
        while others.last().is_none_or(|other: &Arc<Slot>| other.receives(64 << 10)) {
            others.push(slots.take(None).await);
        }
        while others.last().is_some_and(|other| other.receives(2 * PIECE)) {
            others.push(slots.take(None).await);
        }
        // The last one holds nothing, the one before it what two pieces need.
        others.truncate(others.len() - 2);
        let (mut client, server) = duplex(4 * PIECE);
        let (slot, limits) = (slots.take(None).await, limits(Duration::from_millis(200)));
        let mut stream = WriteTimeout::new(server, Some(slot), limits);
        client.write_all(&[b'x'; 3 * PIECE]).await.unwrap();

        let error = stream.read_exact(&mut [0; 3 * PIECE]).await.unwrap_err();
        drop(stream);

        assert_eq!(error.kind(), io::ErrorKind::QuotaExceeded);
        let other = slots.take(None).await;
        assert!(other.receives(2 * PIECE), "what the connection had reserved is free again");
        let mut byte = [0];
        assert!(client.read(&mut byte).now_or_never().is_none(), "it is open");
        assert_eq!(client.read(&mut byte).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_connection_with_many_bytes_lets_others_go_on() {
        let (mut client, server) = duplex(4 * BYTES_IN_A_TURN);
        let slot = Slots::new(1, 1, 0, ConnectionMetrics::noop()).take(None).await;
        slot.begin(true);
        let mut stream = WriteTimeout::new(server, Some(slot), limits(Duration::from_secs(60)));
        stream.write_all(&[b'x'; BYTES_IN_A_TURN]).now_or_never().unwrap().unwrap();
        assert!(stream.write(b"x").now_or_never().is_none(), "more was written in one turn");
        stream.write_all(b"x").await.unwrap();

        client.write_all(&[b'y'; 2 * BYTES_IN_A_TURN]).await.unwrap();
        let mut received = [0; 2 * BYTES_IN_A_TURN];
        assert!(stream.read_exact(&mut received).now_or_never().is_none(), "more was read in one turn");
        stream.read_exact(&mut [0; BYTES_IN_A_TURN]).await.unwrap();
    }

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
