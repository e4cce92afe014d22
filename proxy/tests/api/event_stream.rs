//! A stream of server-sent events, read as a client does.

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    time::timeout,
};

use crate::site::{SOON, Site};

/// One event as it was received.
#[derive(Debug, Default)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) data: Value,
}

/// See the module.
pub(crate) struct Events {
    answer: BufReader<TcpStream>,
    pub(crate) head: String,
    /// Received, and not read yet.
    text: String,
}

impl Events {
    pub(crate) async fn open(site: &Site, id: &str, more: &str) -> Self {
        let mut stream = TcpStream::connect(site.proxy.addr()).await.unwrap();
        let request = format!(
            "GET /job/{id} HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\nconnection: close\r\n{more}\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let (mut answer, mut head) = (BufReader::new(stream), String::new());
        while answer.read_line(&mut head).await.unwrap() > 2 {}
        Self { answer, head: head.to_lowercase().replace("\r\n", "\n"), text: String::new() }
    }

    /// The next event; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        let mut event = Event::default();
        loop {
            let line = timeout(SOON, self.line()).await.expect("an event in time")?;
            match line.split_once(':') {
                Some(("event", name)) => event.name = name.trim().to_owned(),
                Some(("id", id)) => event.id = id.trim().to_owned(),
                Some(("data", data)) => event.data = serde_json::from_str(data).unwrap(),
                _ if line.is_empty() && !event.name.is_empty() => return Some(event),
                _ => {}
            }
        }
    }

    /// Waits for a comment.
    pub(crate) async fn comment(&mut self) {
        let comment = async { while !self.line().await.expect("more lines").starts_with(':') {} };
        timeout(SOON, comment).await.expect("a comment in time");
    }

    pub(crate) async fn status(&mut self) -> (String, String) {
        let event = self.next().await.expect("another event");
        (event.name, event.data["status"].as_str().unwrap().to_owned())
    }

    /// The next line, without its end.
    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some((line, rest)) = self.text.split_once('\n') {
                let line = line.to_owned();
                self.text = rest.to_owned();
                return Some(line);
            }
            let chunk = self.chunk().await?;
            self.text.push_str(&chunk);
        }
    }

    /// The next chunk (RFC 9112, section 7.1); `None` when there is no more.
    async fn chunk(&mut self) -> Option<String> {
        let mut size = String::new();
        self.answer.read_line(&mut size).await.unwrap();
        let size = usize::from_str_radix(size.trim_end(), 16).unwrap_or(0);
        let mut chunk = vec![0; size + 2];
        self.answer.read_exact(&mut chunk).await.ok()?;
        chunk.truncate(size);
        (size > 0).then(|| String::from_utf8(chunk).unwrap())
    }
}
