//! One proxied connection: a pump each way, until both ends are done, the connection is cut, or a reply is
//! dropped.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::{Control, Mode};

/// The most that is read at once; a piece that waits in [`Mode::Delay`] gathers up to this much more behind
/// it.
const PIECE_BYTES: usize = 64 * 1024;
/// How long the upstream may take to close a connection whose client has left.
const DRAIN_WITHIN: Duration = Duration::from_secs(5);

/// Why a connection ended other than by both ends closing it.
enum End {
    Broken,
    Cut,
    ReplyDropped,
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Broken
    }
}

/// What both pumps of one connection know.
struct Flow {
    control: Arc<Control>,
    /// Bytes of this connection were swallowed: it can carry nothing sensible any more.
    dead: AtomicBool,
    /// A request was forwarded whose reply must be dropped.
    marked: AtomicBool,
}

/// Serves a client until its connection ends; returns whether it was cut off.
pub(super) async fn run(
    mut client: TcpStream,
    control: Arc<Control>,
    cut_off: oneshot::Receiver<()>,
) -> bool {
    let flow = Flow { control, dead: AtomicBool::new(false), marked: AtomicBool::new(false) };
    let mut upstream = None;
    let ended = tokio::select! {
        ended = flow.carry(&mut client, &mut upstream) => ended,
        Ok(()) = cut_off => Err(End::Cut),
    };
    if ended.is_err() {
        let _ = client.set_zero_linger(); // Closing now sends a reset.
    }
    drop(client);
    if let Some(upstream) = upstream {
        tokio::spawn(timeout(DRAIN_WITHIN, drain(upstream)));
    }
    match ended {
        Err(End::Cut) => flow.control.hit(|hits| hits.cut += 1),
        Err(End::ReplyDropped) => flow.control.hit(|hits| hits.replies_dropped += 1),
        Ok(()) | Err(End::Broken) => {}
    }
    matches!(ended, Err(End::Cut))
}

impl Flow {
    async fn carry(&self, client: &mut TcpStream, upstream: &mut Option<TcpStream>) -> Result<(), End> {
        client.set_nodelay(true)?;
        let (from_client, to_client) = client.split();
        if self.control.mode() == Mode::HalfOpen {
            return self.hold(from_client).await;
        }
        let upstream = upstream.insert(TcpStream::connect(self.control.upstream()).await?);
        upstream.set_nodelay(true)?;
        let (from_upstream, to_upstream) = upstream.split();
        tokio::try_join!(self.requests(from_client, to_upstream), self.replies(from_upstream, to_client))?;
        Ok(())
    }

    /// A connection that was half-open from the start has no upstream.
    async fn hold(&self, mut from: ReadHalf<'_>) -> Result<(), End> {
        let mut piece = vec![0; PIECE_BYTES];
        while from.read(&mut piece).await? > 0 {
            self.die();
        }
        Ok(())
    }

    async fn requests(&self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> Result<(), End> {
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let read = from.read(&mut piece).await?;
            if read == 0 {
                return Ok(to.shutdown().await?);
            }
            if self.control.is_silenced_by(&piece[..read]) {
                self.die();
            }
            if self.swallows() {
                continue;
            }
            let marked = self.control.takes_reply_to(&piece[..read]);
            self.pass(&piece[..read], &mut to).await?;
            // Only now, so that the request itself is sure to reach the upstream.
            self.marked.fetch_or(marked, Ordering::Relaxed);
        }
    }

    async fn replies(&self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> Result<(), End> {
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let read = from.read(&mut piece).await?;
            if read == 0 {
                return Ok(to.shutdown().await?);
            }
            if self.swallows() {
                continue;
            }
            if self.marked.load(Ordering::Relaxed) || self.control.takes_reply() {
                return Err(End::ReplyDropped);
            }
            if let Mode::Delay(delay) = self.control.mode() {
                self.control.hit(|hits| hits.delayed += 1);
                sleep(delay).await;
            }
            if !self.swallows() {
                self.pass(&piece[..read], &mut to).await?;
            }
        }
    }

    /// Writes everything, in small pieces while the mode says so.
    async fn pass(&self, mut bytes: &[u8], to: &mut WriteHalf<'_>) -> io::Result<()> {
        while !bytes.is_empty() {
            let mut now = bytes.len();
            if let Mode::Drip { bytes: at_most, pause } = self.control.mode() {
                self.control.hit(|hits| hits.dripped += 1);
                sleep(pause).await;
                now = now.min(at_most);
            }
            to.write_all(&bytes[..now]).await?;
            bytes = &bytes[now..];
        }
        Ok(())
    }

    /// Whether bytes that arrive now vanish.
    fn swallows(&self) -> bool {
        if self.control.mode() == Mode::HalfOpen {
            self.die();
        }
        self.dead.load(Ordering::Relaxed)
    }

    fn die(&self) {
        if !self.dead.swap(true, Ordering::Relaxed) {
            self.control.hit(|hits| hits.half_open += 1);
        }
    }
}

/// Ends an upstream connection in order. Closing it with replies unread would send a reset, and the upstream
/// might throw away requests that it has received but not yet carried out.
async fn drain(mut upstream: TcpStream) {
    let mut rest = vec![0; PIECE_BYTES];
    let _ = upstream.shutdown().await;
    while let Ok(1..) = upstream.read(&mut rest).await {}
}
