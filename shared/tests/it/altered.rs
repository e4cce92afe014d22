//! Runs a store on altered scripts. Between the store and Redis, a proxy replaces the SHA-1 of each script that the
//! alteration touches by that of the altered text. Both have 40 digits, so nothing else of what passes changes.

use std::{io, sync::Arc};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinHandle,
};

use crate::queue::{Queue, SOON};

/// A change to one of the files in `src/queue/lua`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Alteration {
    pub(crate) file: &'static str,
    /// Text that the file has exactly once.
    pub(crate) cut: &'static str,
    /// What stands there instead.
    pub(crate) put: &'static str,
}

/// The queue, reached through the proxy, which stops with this.
pub(crate) struct Altered {
    pub(crate) queue: Queue,
    accepting: JoinHandle<()>,
}

impl Altered {
    /// A queue of the same server with altered scripts. Without an alteration, the proxy changes nothing.
    pub(crate) async fn new(queue: &Queue, alteration: Option<Alteration>) -> Self {
        let swaps = match alteration {
            Some(alteration) => swaps(queue, alteration).await,
            None => Vec::new(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let accepting = tokio::spawn(accept(listener, queue.server().addr(), Arc::new(swaps)));
        let mut queue = Queue::through(&queue.servers, &address, SOON).await;
        // The proxy is in front of one server. The key without a partition must be there, too.
        while queue.servers.owner(&queue.store.queue.keys().workers()).port() != queue.server().port() {
            queue = queue.another();
        }
        Self { queue, accepting }
    }
}

impl Drop for Altered {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// SHA-1 digits of a script as it is, and as it shall be.
type Swap = (Vec<u8>, Vec<u8>);

/// Loads the altered scripts into Redis.
async fn swaps(queue: &Queue, alteration: Alteration) -> Vec<Swap> {
    let originals = scripts(None);
    let mut swaps = Vec::new();
    for (original, altered) in originals.into_iter().zip(scripts(Some(alteration))) {
        if original == altered {
            continue;
        }
        let old: String = queue.redis(&["SCRIPT", "LOAD", &original]).await;
        let new: String = queue.redis(&["SCRIPT", "LOAD", &altered]).await;
        swaps.push((old.into_bytes(), new.into_bytes()));
    }
    assert!(!swaps.is_empty(), "{alteration:?} touches no script");
    swaps
}

/// The files of `src/queue/lua`, as they were when this was built: so was the store under test.
macro_rules! sources {
    ($($file:literal)*) => { [$(($file, include_str!(concat!("../../src/queue/lua/", $file)))),*] };
}

const SOURCES: [(&str, &str); 26] = sources![
    "accept.lua" "cancel.lua" "clock.lua" "complete.lua" "end.lua" "expire.lua" "fail.lua" "found.lua" "grant.lua"
    "heartbeat.lua" "hold.lua" "lib.lua" "prune.lua" "publish.lua" "quota.lua" "recount.lua" "release.lua" "renew.lua"
    "requeue.lua" "retry.lua" "start.lua" "submit.lua" "sweep.lua" "take.lua" "uncharge.lua" "workers.lua"
];
/// Has the table of scripts and their parts.
const TABLE: &str = include_str!("../../src/queue/scripts.rs");

/// Every script's text, put together as the table says.
fn scripts(alteration: Option<Alteration>) -> Vec<String> {
    let read = |file: String| {
        let (_, text) = SOURCES.iter().find(|(source, _)| *source == file).unwrap();
        match alteration {
            Some(Alteration { file: altered, cut, put }) if altered == file => {
                assert_eq!(text.matches(cut).count(), 1, "{file} has this not exactly once: {cut}");
                text.replace(cut, put)
            }
            _ => (*text).to_owned(),
        }
    };
    let row = |line: &'static str| line.trim().strip_suffix(';')?.split_once(" = \"")?.1.split_once("\" + ");
    let assemble = |(name, parts): (&str, &str)| {
        let script = read(format!("{name}.lua"));
        let (shebang, body) = script.split_once('\n').unwrap();
        let parts: String =
            parts.split(" + ").map(|part| read(format!("{}.lua", part.to_lowercase()))).collect();
        format!("{shebang}\n{parts}{body}")
    };
    TABLE.lines().filter_map(row).map(assemble).collect()
}

async fn accept(listener: TcpListener, upstream: String, swaps: Arc<Vec<Swap>>) {
    loop {
        let (client, _) = listener.accept().await.unwrap();
        let server = TcpStream::connect(&upstream).await.unwrap();
        for stream in [&client, &server] {
            stream.set_nodelay(true).unwrap();
        }
        let (from_client, mut to_client) = client.into_split();
        let (mut from_server, to_server) = server.into_split();
        tokio::spawn(pass(from_client, to_server, Arc::clone(&swaps)));
        tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
    }
}

/// Passes requests on. The possible begin of a digest waits for the rest of it.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, swaps: Arc<Vec<Swap>>) -> io::Result<()> {
    let mut bytes = Vec::new();
    while from.read_buf(&mut bytes).await? > 0 {
        for (old, new) in swaps.iter() {
            replace(&mut bytes, old, new);
        }
        let begun = |held: &usize| swaps.iter().any(|(old, _)| old.starts_with(&bytes[bytes.len() - held..]));
        let held = (1..bytes.len().min(40)).rev().find(begun).unwrap_or(0);
        let rest = bytes.split_off(bytes.len() - held);
        to.write_all(&bytes).await?;
        bytes = rest;
    }
    Ok(())
}

fn replace(bytes: &mut [u8], old: &[u8], new: &[u8]) {
    let mut at = 0;
    while let Some(found) = bytes[at..].windows(old.len()).position(|window| window == old) {
        at += found;
        bytes[at..at + new.len()].copy_from_slice(new);
        at += new.len();
    }
}

#[tokio::test]
async fn the_texts_are_those_that_the_store_runs() {
    let queue = Queue::start().await;
    let scripts = scripts(None);
    assert_eq!(scripts.len(), 18);
    // The store has loaded its scripts before, so it loads no new ones.
    for script in scripts {
        queue.redis::<String>(&["SCRIPT", "LOAD", &script]).await;
    }
    assert_eq!(queue.server().info("number_of_cached_scripts").as_deref(), Some("18"));
}
