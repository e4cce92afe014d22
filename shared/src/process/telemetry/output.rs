//! The output of the log. Lines are appended to a buffer, and one thread writes the buffer. No other thread waits for the output: a
//! line that does not fit into the buffer, or cannot be written, is dropped and counted.

use std::{
    io::{self, ErrorKind, Write},
    mem,
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use tracing::{Level, Metadata, warn};
use tracing_subscriber::fmt::MakeWriter;

/// Size of the buffer, bytes. The output may block for a second under usual load, and for a tenth of that under the highest load.
const MOST_WAITING: usize = 1 << 20;
/// With this many bytes in the buffer, the thread writes at once.
const ENOUGH: usize = 1 << 18;
/// Pause after a write. So a busy service writes at most a hundred times a second.
const GATHER: Duration = Duration::from_millis(10);

/// The buffer and its thread.
pub(super) struct Output {
    lines: Mutex<Lines>,
    /// Wakes the thread: there are lines, or they are urgent.
    ready: Condvar,
    /// Wakes threads that flush: lines were written.
    written: Condvar,
    dropped: AtomicU64,
}

struct Lines {
    waiting: Vec<u8>,
    /// Whether the lines must be written at once.
    is_urgent: bool,
    is_writing: bool,
}

impl Output {
    pub(super) const fn new() -> Self {
        let lines = Lines { waiting: Vec::new(), is_urgent: false, is_writing: false };
        let (ready, written) = (Condvar::new(), Condvar::new());
        Self { lines: Mutex::new(lines), ready, written, dropped: AtomicU64::new(0) }
    }

    /// Number of lines dropped so far.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Starts the thread that writes to `out`.
    pub(super) fn start(&'static self, out: impl Write + Send + 'static) -> io::Result<()> {
        let sink = Sink { out, is_cut: false };
        thread::Builder::new().name("log".to_owned()).spawn(move || self.write_for_ever(sink))?;
        Ok(())
    }

    /// Waits until all lines are written, but no longer than `within`.
    pub(super) fn flush(&self, within: Duration) {
        let mut lines = self.lines();
        lines.is_urgent = true;
        self.ready.notify_one();
        let is_under_way = |lines: &mut Lines| lines.is_writing || !lines.waiting.is_empty();
        // After the time limit, there is nothing more to do.
        drop(self.written.wait_timeout_while(lines, within, is_under_way));
    }

    fn add(&self, line: &[u8], is_urgent: bool) {
        let mut lines = self.lines();
        if lines.waiting.len() + line.len() > MOST_WAITING {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let was_ready = lines.is_ready();
        let was_empty = lines.waiting.is_empty();
        lines.waiting.extend_from_slice(line);
        lines.is_urgent |= is_urgent;
        // One system call for each write of the thread, not for each line.
        if was_empty || (lines.is_ready() && !was_ready) {
            self.ready.notify_one();
        }
    }

    fn write_for_ever(&self, mut sink: Sink<impl Write>) {
        let mut reported = 0;
        loop {
            let lines = self.take();
            let lost = sink.write(&lines);
            self.dropped.fetch_add(lost, Ordering::Relaxed);
            self.finish(lines);
            let dropped = self.dropped();
            if lost == 0 && dropped > reported {
                warn!(action = "log_lines_dropped", count = dropped - reported);
                reported = dropped;
            }
            self.gather();
        }
    }

    /// Waits for lines.
    fn take(&self) -> Vec<u8> {
        let lines = self.lines();
        let is_empty = |lines: &mut Lines| lines.waiting.is_empty();
        let mut lines = self.ready.wait_while(lines, is_empty).unwrap_or_else(PoisonError::into_inner);
        (lines.is_urgent, lines.is_writing) = (false, true);
        mem::take(&mut lines.waiting)
    }

    fn finish(&self, mut written: Vec<u8>) {
        let mut lines = self.lines();
        lines.is_writing = false;
        if lines.waiting.is_empty() {
            written.clear();
            // Reuses the memory.
            lines.waiting = written;
        }
        self.written.notify_all();
    }

    fn gather(&self) {
        let lines = self.lines();
        drop(self.ready.wait_timeout_while(lines, GATHER, |lines| !lines.is_ready()));
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        // A panic cannot leave the buffer half-changed.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    /// Whether the lines must be written now.
    fn is_ready(&self) -> bool {
        self.is_urgent || self.waiting.len() >= ENOUGH
    }
}

/// Writes one line.
pub(super) struct Entry {
    output: &'static Output,
    is_urgent: bool,
}

impl Write for Entry {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.output.add(line, self.is_urgent);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for &'static Output {
    type Writer = Entry;

    fn make_writer(&self) -> Entry {
        Entry { output: self, is_urgent: true }
    }

    fn make_writer_for(&self, line: &Metadata<'_>) -> Entry {
        Entry { output: self, is_urgent: *line.level() <= Level::WARN }
    }
}

/// The output of the thread.
struct Sink<W> {
    out: W,
    /// Whether only a part of the last line was written.
    is_cut: bool,
}

impl<W: Write> Sink<W> {
    /// Writes the lines. Returns the number of lost ones.
    fn write(&mut self, lines: &[u8]) -> u64 {
        if self.is_cut && self.write_some(b"\n") == 1 {
            self.is_cut = false;
        }
        let written = if self.is_cut { 0 } else { self.write_some(lines) };
        let (written, lost) = lines.split_at(written);
        self.is_cut |= written.last().is_some_and(|last| *last != b'\n');
        lost.iter().filter(|byte| **byte == b'\n').count() as u64
    }

    /// Returns the number of bytes written before an error.
    fn write_some(&mut self, bytes: &[u8]) -> usize {
        let mut written = 0;
        while written < bytes.len() {
            match self.out.write(&bytes[written..]) {
                Ok(0) => break,
                Ok(count) => written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Another process that shares the output may have made it non-blocking.
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(GATHER),
                Err(_) => break,
            }
        }
        written
    }
}

#[cfg(test)]
mod tests;
