//! One connection: requests and replies in turn.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::{Reply, Shared};

/// A request as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its method.
    pub method: String,
    /// Its path and query.
    pub path: String,
    /// Its headers, with names in lower case.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Vec<u8>,
}

impl Received {
    /// The value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Serves a connection until a side closes it.
pub(super) async fn serve(
    mut connection: impl AsyncRead + AsyncWrite + Unpin,
    shared: &Shared,
) -> io::Result<()> {
    let mut buffer = Vec::new();
    while let Some(request) = read(&mut connection, &mut buffer).await? {
        let reply = {
            let mut state = shared.state();
            if request.method == "GET" {
                state.probe_count += 1;
                state.probes.clone()
            } else {
                state.received.push(request.clone());
                match state.by_body.get(&request.body).cloned() {
                    Some(reply) => reply,
                    None => state.next.pop_front().unwrap_or_else(|| state.always.clone()),
                }
            }
        };
        if !answer(&mut connection, &request, reply, shared).await? {
            return Ok(());
        }
    }
    Ok(())
}

/// Sends the reply; whether the connection stays open.
async fn answer(
    connection: &mut (impl AsyncRead + AsyncWrite + Unpin),
    request: &Received,
    reply: Reply,
    shared: &Shared,
) -> io::Result<bool> {
    match reply {
        Reply::Echo => {
            let content_type = request.header("content-type").unwrap_or("application/json").to_owned();
            let headers = vec![("content-type".to_owned(), content_type)];
            connection.write_all(&message(200, &headers, &request.body, 0)).await?;
        }
        Reply::Answer { status, headers, body } => {
            connection.write_all(&message(status, &headers, &body, 0)).await?
        }
        Reply::Chunks { chunks, is_whole } => {
            connection.write_all(&chunked(&chunks, is_whole)).await?;
            connection.flush().await?;
            return Ok(is_whole);
        }
        Reply::Cut(missing) => {
            connection.write_all(&message(200, &json(), b"{\"a\": ", missing)).await?;
            return Ok(false);
        }
        Reply::Stall => {
            connection.write_all(&message(200, &json(), b"{\"a\": ", 10)).await?;
            wait_for_the_end(connection, shared).await;
            return Ok(false);
        }
        Reply::Close => return Ok(false),
        Reply::Hang => {
            wait_for_the_end(connection, shared).await;
            return Ok(false);
        }
        Reply::Noise => {
            connection.write_all(b"220 mail.example ESMTP\r\n").await?;
            return Ok(false);
        }
    }
    connection.flush().await?;
    Ok(true)
}

fn json() -> Vec<(String, String)> {
    vec![("content-type".to_owned(), "application/json".to_owned())]
}

/// An answer whose declared length is larger than its body by `missing`.
fn message(status: u16, headers: &[(String, String)], body: &[u8], missing: usize) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status} Whatever\r\ncontent-length: {}\r\n", body.len() + missing);
    headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
    [head.as_bytes(), b"\r\n", body].concat()
}

/// An answer of JSON in chunks (RFC 9112, section 7.1).
fn chunked(chunks: &[Vec<u8>], is_whole: bool) -> Vec<u8> {
    let head =
        "HTTP/1.1 200 Whatever\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut message = head.as_bytes().to_vec();
    for chunk in chunks {
        message.extend(format!("{:x}\r\n", chunk.len()).bytes());
        message.extend(chunk.iter().chain(b"\r\n"));
    }
    if is_whole {
        message.extend(b"0\r\n\r\n");
    }
    message
}

/// Waits until the client closes the connection.
async fn wait_for_the_end(connection: &mut (impl AsyncRead + AsyncWrite + Unpin), shared: &Shared) {
    let _ = connection.flush().await;
    let _ = connection.read_to_end(&mut Vec::new()).await;
    shared.state().abandoned += 1;
}

/// The next request; `None` when the client has closed the connection.
async fn read(
    connection: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
) -> io::Result<Option<Received>> {
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if connection.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
    let mut lines = head.lines();
    let mut words = lines.next().unwrap_or_default().split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let headers = lines.filter_map(|line| line.split_once(':'));
    let headers: Vec<_> =
        headers.map(|(name, value)| (name.to_lowercase(), value.trim().to_owned())).collect();
    let mut request = Received { method, path, headers, body: Vec::new() };
    let length: usize =
        request.header("content-length").map_or(0, |length| length.parse().expect("a length"));
    while buffer.len() < end + length {
        if connection.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
    request.body = buffer[end..end + length].to_vec();
    buffer.drain(..end + length);
    Ok(Some(request))
}
