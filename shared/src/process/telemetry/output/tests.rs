//! What is written, when, and what is dropped.

use std::{
    io::Read as _,
    os::unix::net::UnixStream,
    sync::{
        Arc,
        mpsc::{self, Receiver, SyncSender},
    },
    time::Instant,
};

use super::*;

const SOON: Duration = Duration::from_secs(10);

fn output() -> &'static Output {
    Box::leak(Box::new(Output::new()))
}

fn eventually(what: &str, is_true: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_true() {
        assert!(started.elapsed() < SOON, "{what}");
        thread::yield_now();
    }
}

/// An output on which each write waits until the test takes it.
struct Slow(SyncSender<String>);

impl Write for Slow {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(String::from_utf8_lossy(bytes).into_owned()).map_err(|_| ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn slow() -> (Slow, Receiver<String>) {
    let (sender, writes) = mpsc::sync_channel(0);
    (Slow(sender), writes)
}

#[test]
fn lines_that_come_during_a_write_are_written_together() {
    let (output, (out, writes)) = (output(), slow());
    output.start(out).unwrap();
    output.add(b"a\n", false);
    eventually("the thread takes it", || output.lines().is_writing);
    ["b\n", "c\n", "d\n"].iter().for_each(|line| output.add(line.as_bytes(), false));
    assert_eq!(writes.recv_timeout(SOON).unwrap(), "a\n");
    assert_eq!(writes.recv_timeout(SOON).unwrap(), "b\nc\nd\n");
    assert_eq!(output.dropped(), 0);
}

#[test]
fn a_blocked_output_delays_no_thread_and_costs_lines() {
    let (output, (out, writes)) = (output(), slow());
    output.start(out).unwrap();
    let line = vec![b'x'; 1023].into_iter().chain([b'\n']).collect::<Vec<_>>();
    output.add(&line, false);
    eventually("the thread takes it", || output.lines().is_writing);
    (0..1100).for_each(|_| output.add(&line, true));
    assert_eq!(output.dropped(), 1100 - MOST_WAITING as u64 / 1024);

    let started = Instant::now();
    output.flush(Duration::from_millis(50));
    assert!(started.elapsed() < SOON, "the end waits for the output");

    // What was kept is written when the output goes on.
    let read = thread::spawn(move || writes.iter().take(2).map(|text| text.len()).sum::<usize>());
    output.flush(SOON);
    assert_eq!(read.join().unwrap(), 1024 + MOST_WAITING);
}

#[test]
fn lines_on_a_closed_output_are_counted() {
    let (output, (out, writes)) = (output(), slow());
    drop(writes);
    output.start(out).unwrap();
    output.add(b"a\nb\n", true);
    eventually("both are counted", || output.dropped() == 2);
}

#[test]
fn a_flush_waits_until_all_is_written() {
    let output = output();
    let written = Arc::new(Mutex::new(Vec::new()));
    output.start(Recorded { written: Arc::clone(&written), room: usize::MAX }).unwrap();
    output.add(b"a\n", false);
    output.add(b"b\n", false);
    output.flush(SOON);
    assert_eq!(*written.lock().unwrap(), b"a\nb\n");
}

/// An output with so much room, like a disk.
struct Recorded {
    written: Arc<Mutex<Vec<u8>>>,
    room: usize,
}

impl Write for Recorded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let fitting = bytes.len().min(self.room);
        if fitting == 0 {
            return Err(ErrorKind::StorageFull.into());
        }
        self.room -= fitting;
        self.written.lock().unwrap().write(&bytes[..fitting])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_line_that_was_cut_off_does_not_spoil_the_next_one() {
    let written = Arc::new(Mutex::new(Vec::new()));
    let out = Recorded { written: Arc::clone(&written), room: 6 };
    let mut sink = Sink { out, is_cut: false };
    assert_eq!(sink.write(b"one\ntwo\nthree\n"), 2);
    assert_eq!(sink.write(b"four\n"), 1);
    sink.out.room = 100;
    assert_eq!(sink.write(b"five\n"), 0);
    assert_eq!(*written.lock().unwrap(), b"one\ntw\nfive\n");
}

#[test]
fn a_full_pipe_that_does_not_block_is_waited_for() {
    let (writer, mut reader) = UnixStream::pair().unwrap();
    writer.set_nonblocking(true).unwrap();
    let lines = vec![b'\n'; 4 << 20];
    let expected = lines.len();
    let writing = thread::spawn(move || Sink { out: writer, is_cut: false }.write(&lines));
    let mut read = Vec::new();
    reader.read_to_end(&mut read).unwrap();
    assert_eq!((writing.join().unwrap(), read.len()), (0, expected));
}
