//! The thread that closes connections without a slot. Linux takes three times as long to close a connection as to accept one, and
//! meanwhile the line of the operating system would fill.

use std::{
    io,
    net::TcpStream,
    sync::mpsc::{SyncSender, sync_channel},
    thread,
};

/// Hands connections to the thread, which ends when this is dropped.
pub(super) struct Closer(SyncSender<TcpStream>);

impl Closer {
    /// Starts the thread. At most so many connections wait for it. Each is an open file.
    pub(super) fn start(most: usize) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(most);
        thread::Builder::new().name("close".to_owned()).spawn(move || receiver.iter().for_each(drop))?;
        Ok(Self(sender))
    }

    /// Closes the connection soon, or at once if too many wait.
    pub(super) fn close(&self, stream: TcpStream) {
        drop(self.0.try_send(stream));
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, net::TcpListener};

    use super::*;

    #[test]
    fn every_connection_is_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let closer = Closer::start(1).unwrap();
        for _ in 0..10 {
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            closer.close(listener.accept().unwrap().0);
            assert_eq!(client.read(&mut [0]).unwrap(), 0);
        }
    }
}
