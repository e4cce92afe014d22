//! Where lines of the log go: out at once, or together with those that follow while there is work to do.

use std::{
    cell::Cell,
    io::{self, Write},
    sync::{Mutex, MutexGuard, PoisonError},
};

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// Bytes of lines that wait at most, a write's worth.
const MOST_WAITING: usize = 8 << 10;

thread_local! {
    /// Whether this thread is sure to write what waits before it goes idle.
    static MAY_WAIT: Cell<bool> = const { Cell::new(false) };
}

/// Lines on their way to what `open` gives.
pub(super) struct Output<W> {
    waiting: Mutex<Vec<u8>>,
    open: fn() -> W,
}

impl<W: Write + 'static> Output<W> {
    pub(super) const fn new(open: fn() -> W) -> Self {
        Self { waiting: Mutex::new(Vec::new()), open }
    }

    /// Lets the lines that the threads of this runtime log wait while they have other things to do.
    pub(super) fn follow(&'static self, runtime: &mut tokio::runtime::Builder) {
        runtime.on_thread_unpark(|| MAY_WAIT.set(true)).on_thread_park(|| {
            MAY_WAIT.set(false);
            self.flush();
        });
    }

    /// Writes all lines that wait.
    pub(super) fn flush(&self) {
        let mut waiting = self.waiting();
        let written = if waiting.is_empty() { Ok(()) } else { self.write_out(&mut waiting) };
        // A panic that is to be logged must find it free.
        drop(waiting);
        if let Err(error) = written {
            // Where this cannot be written either, there is nobody left to tell.
            let _ = writeln!(io::stderr(), "lines of the log are lost, since it cannot be written: {error}");
        }
    }

    /// Lines that cannot be written are dropped.
    fn write_out(&self, waiting: &mut Vec<u8>) -> io::Result<()> {
        let written = (self.open)().write_all(waiting);
        waiting.clear();
        written
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<u8>> {
        // Bytes are appended or cleared: nothing is half-done after a panic.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes one line.
pub(super) struct Entry<W: 'static> {
    output: &'static Output<W>,
    is_urgent: bool,
}

impl<W: Write + 'static> Write for Entry<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut waiting = self.output.waiting();
        waiting.extend_from_slice(line);
        if self.is_urgent || waiting.len() >= MOST_WAITING || !MAY_WAIT.get() {
            self.output.write_out(&mut waiting)?;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<W: Write + 'static> MakeWriter<'_> for &'static Output<W> {
    type Writer = Entry<W>;

    fn make_writer(&self) -> Self::Writer {
        Entry { output: self, is_urgent: true }
    }

    fn make_writer_for(&self, line: &Metadata<'_>) -> Self::Writer {
        Entry { output: self, is_urgent: *line.level() <= Level::WARN }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use tracing::{info, warn};

    use super::*;

    static CLOSED: Output<Closed> = Output::new(|| Closed);

    /// As a pipe that nobody reads any more.
    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_cannot_be_written_are_dropped_and_stop_nobody() {
        let mut entry = Entry { output: &CLOSED, is_urgent: true };
        assert!(entry.write(b"urgent\n").is_err(), "the subscriber tells it");
        MAY_WAIT.set(true);
        let mut entry = Entry { output: &CLOSED, is_urgent: false };
        entry.write_all(b"one\n").unwrap();
        CLOSED.flush();
        assert!(CLOSED.waiting.try_lock().unwrap().is_empty());
        MAY_WAIT.set(false);
    }

    static WRITTEN: Mutex<Vec<u8>> = Mutex::new(Vec::new());
    static OUTPUT: Output<Written> = Output::new(|| Written);

    struct Written;

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            WRITTEN.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logging(action: impl FnOnce()) {
        let subscriber = tracing_subscriber::fmt().with_writer(&OUTPUT).finish();
        tracing::subscriber::with_default(subscriber, action);
    }

    /// Which of the texts have been written so far, each one by itself.
    fn written() -> String {
        let bytes = WRITTEN.lock().unwrap().clone();
        let lines = String::from_utf8(bytes).unwrap();
        lines.lines().filter_map(|line| line.rsplit(' ').next()).filter(|word| word.len() == 1).collect()
    }

    #[test]
    fn lines_wait_while_their_thread_has_other_things_to_do() {
        // A thread that nobody watches.
        logging(|| info!("a"));
        assert_eq!(written(), "a");

        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        OUTPUT.follow(&mut runtime);
        let runtime = runtime.worker_threads(1).build().unwrap();
        // Once it has been idle, its thread is sure to be so again.
        let mut tries = 0;
        while !runtime.block_on(async { tokio::spawn(async { MAY_WAIT.get() }).await.unwrap() }) {
            tries += 1;
            assert!(tries < 1000, "the thread never was idle");
        }
        let busy = runtime.spawn(async {
            logging(|| {
                info!("b");
                info!("c");
                assert_eq!(written(), "a");
                // Bad news are told at once, behind what went before.
                warn!("d");
                assert_eq!(written(), "abcd");
                // So is more than a buffer's worth.
                info!("e");
                info!("{:1$} f", "", MOST_WAITING);
                assert_eq!(written(), "abcdef");
                info!("g");
            });
            assert_eq!(written(), "abcdef");
        });
        runtime.block_on(busy).unwrap();

        let started = Instant::now();
        while written() != "abcdefg" {
            assert!(started.elapsed() < Duration::from_secs(10), "an idle thread leaves lines unwritten");
            std::thread::yield_now();
        }
        // And those of a blocking thread, which is never idle in this sense.
        runtime.block_on(runtime.spawn_blocking(|| logging(|| info!("h")))).unwrap();
        assert_eq!(written(), "abcdefgh");
    }
}
