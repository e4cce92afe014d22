//! One plain HTTP/1.1 connection from an address of the client's choice. It counts bytes, sends any
//! bytes, and never repeats a request. It costs less than an HTTP library.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::sync::atomic::{AtomicU16, Ordering};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};

/// Ports of clients. They are chosen here, in turn. The kernel's search for a free port took 28 % of all processor time in an attack
/// with thousands of connections, and holds locks that other clients wait for.
const PORTS: Range<u16> = 20_000..60_000;
/// Bytes that the system takes of a sender at a time. Linux doubles it.
const SEND_BUFFER: u32 = 64 << 10;
/// Ports that a connection tries.
const MOST_TRIES: usize = 100;

/// A connection.
#[derive(Debug)]
pub(super) struct Wire {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

/// A whole answer.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Bytes of the head.
    pub(super) head: usize,
    pub(super) body: Vec<u8>,
}

fn next_port() -> u16 {
    static COUNT: AtomicU16 = AtomicU16::new(0);
    PORTS.start + COUNT.fetch_add(1, Ordering::Relaxed) % (PORTS.end - PORTS.start)
}

/// Connects from this address. On Linux all of 127.0.0.0/8 is this machine.
pub(super) async fn connect(from: Ipv4Addr, target: SocketAddr) -> io::Result<TcpStream> {
    let mut tries = 0;
    let stream = loop {
        tries += 1;
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        // With the system's 4 MiB, one call of a sender could keep a processor of this machine in the kernel for milliseconds, which
        // no client on another machine can.
        socket.set_send_buffer_size(SEND_BUFFER)?;
        let is_taken = |error: &io::Error| {
            matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable)
        };
        let connected = match socket.bind((from, next_port()).into()) {
            Ok(()) => socket.connect(target).await,
            Err(error) => Err(error),
        };
        match connected {
            Err(error) if is_taken(&error) && tries < MOST_TRIES => {}
            other => break other?,
        }
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl Wire {
    /// Connects from this address.
    pub(super) async fn open(from: Ipv4Addr, target: SocketAddr) -> io::Result<Self> {
        connect(from, target).await.map(Self::new)
    }

    /// Speaks HTTP/1.1 on this connection.
    pub(super) fn new(stream: TcpStream) -> Self {
        let (reader, writer) = stream.into_split();
        Self { reader: BufReader::new(reader), writer }
    }

    /// Sends bytes.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer.write_all(bytes).await
    }

    /// The next answer.
    pub(super) async fn answer(&mut self) -> io::Result<Answer> {
        answer(&mut self.reader).await
    }

    /// More bytes of an endless answer; none if the server has closed the connection.
    pub(super) async fn some(&mut self) -> io::Result<Vec<u8>> {
        let bytes = self.reader.fill_buf().await?.to_vec();
        self.reader.consume(bytes.len());
        Ok(bytes)
    }

    /// Sends requests and reads this many answers meanwhile, because a server may answer before it has read all.
    pub(super) async fn exchange(
        &mut self,
        bytes: &[u8],
        answers: usize,
        mut each: impl FnMut(Answer),
    ) -> io::Result<()> {
        let Self { reader, writer } = self;
        let write = async {
            // A server that refuses a request may stop to read it: what it answers is what matters.
            let _ = writer.write_all(bytes).await;
            std::future::pending::<()>().await;
        };
        let read = async {
            for _ in 0..answers {
                each(answer(reader).await?);
            }
            Ok(())
        };
        tokio::select! {
            read = read => read,
            () = write => Ok(()),
        }
    }
}

impl Answer {
    /// The `code` of a problem; empty if there is none.
    pub(super) fn code(&self) -> &str {
        let text = std::str::from_utf8(&self.body).unwrap_or_default();
        let rest = text.split_once(r#""code":""#).map_or("", |(_, rest)| rest);
        rest.split('"').next().unwrap_or_default()
    }
}

async fn answer(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<Answer> {
    loop {
        let head = head(reader).await?;
        let status = status(&head).ok_or_else(|| io::Error::other(format!("no HTTP: {head}")))?;
        if status >= 200 {
            let body = body(reader, &head, status).await?;
            return Ok(Answer { status, head: head.len(), body });
        }
    }
}

/// The head in lower case.
async fn head(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if reader.read_until(b'\n', &mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(String::from_utf8_lossy(&head).to_ascii_lowercase())
}

fn status(head: &str) -> Option<u16> {
    head.strip_prefix("http/1.1 ")?.get(..3)?.parse().ok()
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let lines = head.split("\r\n").filter_map(|line| line.split_once(": "));
    lines.into_iter().find(|(found, _)| *found == name).map(|(_, value)| value)
}

async fn body(reader: &mut BufReader<OwnedReadHalf>, head: &str, status: u16) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if let Some(length) = header(head, "content-length") {
        body.resize(length.parse().map_err(io::Error::other)?, 0);
        reader.read_exact(&mut body).await?;
    } else if header(head, "transfer-encoding") == Some("chunked") {
        while chunk(reader, &mut body).await? {}
    } else if status != 204 && status != 304 {
        reader.read_to_end(&mut body).await?;
    }
    Ok(body)
}

/// Adds a chunk; `false` after the last one.
async fn chunk(reader: &mut BufReader<OwnedReadHalf>, body: &mut Vec<u8>) -> io::Result<bool> {
    let mut line = String::new();
    reader.read_line(&mut line).await?;
    let size = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
    let before = body.len();
    body.resize(before + size + 2, 0);
    reader.read_exact(&mut body[before..]).await?;
    body.truncate(before + size);
    Ok(size > 0)
}

/// The head of a request.
pub(super) fn head_of(line: &str, more: &str) -> String {
    format!("{line} HTTP/1.1\r\nhost: tepal\r\n{more}\r\n")
}

/// A whole request with a JSON body.
pub(super) fn post(path: &str, body: &[u8]) -> Vec<u8> {
    let more = format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
    [head_of(&format!("POST {path}"), &more).as_bytes(), body].concat()
}

/// A whole request without a body.
pub(super) fn get(path: &str, more: &str) -> Vec<u8> {
    head_of(&format!("GET {path}"), more).into_bytes()
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn answers_of_every_framing_are_read_one_after_the_other() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, peer) = listener.accept().await.unwrap();
            // A connection that is closed with data to read is reset.
            assert!(stream.read(&mut [0; 100]).await.unwrap() > 0);
            let said = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab\
                HTTP/1.1 304 Not Modified\r\n\r\nHTTP/1.1 503 Service Unavailable\r\n\
                Transfer-Encoding: chunked\r\n\r\n11\r\n{\"code\":\"too_far\"\r\n1\r\n}\r\n0\r\n\r\n\
                HTTP/1.1 200 OK\r\n\r\nto the end";
            stream.write_all(said.as_bytes()).await.unwrap();
            peer.ip()
        });
        let mut wire = Wire::open(Ipv4Addr::new(127, 1, 2, 3), target).await.unwrap();
        let mut answers = Vec::new();
        wire.exchange(&get("/", ""), 4, |answer| answers.push(answer)).await.unwrap();
        let seen = answers.iter().map(|answer| (answer.status, answer.body.len(), answer.code()));
        assert_eq!(
            seen.collect::<Vec<_>>(),
            [(200, 2, ""), (304, 0, ""), (503, 18, "too_far"), (200, 10, "")]
        );
        assert!(wire.answer().await.is_err());
        assert_eq!(server.await.unwrap(), Ipv4Addr::new(127, 1, 2, 3));
    }
}
