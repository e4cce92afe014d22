//! The output of a child: stdout and stderr line by line, in one buffer that outlives the child.

use std::io::{BufRead, BufReader, PipeReader, Read};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::wait::poll;

/// A handle on the captured lines; clones share one buffer.
#[derive(Clone, Debug, Default)]
pub struct Logs {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    lines: Mutex<Vec<String>>,
    open_pipes: AtomicUsize,
    unread: Mutex<Vec<PipeReader>>,
}

impl Logs {
    /// Starts a thread that copies the lines of `pipe` into the buffer until the pipe is closed.
    pub fn follow(&self, pipe: impl Read + Send + 'static) {
        let shared = Arc::clone(&self.shared);
        shared.open_pipes.fetch_add(1, Ordering::SeqCst);
        thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
                shared.lines.lock().expect("no panic while held").push(line);
            }
            shared.open_pipes.fetch_sub(1, Ordering::SeqCst);
        });
    }

    /// Keeps the pipe open and never reads it.
    pub(super) fn ignore(&self, pipe: PipeReader) {
        self.shared.unread.lock().expect("no panic while held").push(pipe);
    }

    /// All lines so far.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.shared.lines.lock().expect("no panic while held").clone()
    }

    /// Number of lines so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.lines.lock().expect("no panic while held").len()
    }

    /// Whether there is no line yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether such a line came after the first `before` lines.
    #[must_use]
    pub fn any_since(&self, before: usize, is_so: impl FnMut(&String) -> bool) -> bool {
        self.shared.lines.lock().expect("no panic while held").iter().skip(before).any(is_so)
    }

    /// The lines that are JSON objects, parsed.
    #[must_use]
    pub fn json(&self) -> Vec<Value> {
        let parsed = self.lines().into_iter().filter_map(|line| serde_json::from_str(&line).ok());
        parsed.filter(Value::is_object).collect()
    }

    /// The first line that contains `pattern` as plain text.
    #[must_use]
    pub fn find(&self, pattern: &str) -> Option<String> {
        self.lines().into_iter().find(|line| line.contains(pattern))
    }

    /// The last `count` lines as one text, for panic texts.
    #[must_use]
    pub fn tail(&self, count: usize) -> String {
        let lines = self.lines();
        let skipped = lines.len().saturating_sub(count);
        lines[skipped..].join("\n")
    }

    /// Waits until everything an ended child printed is in the buffer.
    pub(super) async fn settled(&self) {
        let settled = || async { self.shared.open_pipes.load(Ordering::SeqCst) == 0 };
        // A grandchild may hold the pipe open. Then the lines so far must do.
        let _ = poll(Duration::from_secs(1), settled).await;
    }
}
