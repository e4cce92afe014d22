//! A server that is cut off from others in its network.

use super::RedisServer;
use crate::network::Host;

impl RedisServer {
    /// Cuts it off from these servers, and perhaps from its clients and the harness. Connections stay open, but nothing arrives.
    ///
    /// # Panics
    /// When it is in no [network](crate::network).
    pub fn cut_off<'a>(&'a self, from: impl IntoIterator<Item = &'a Self>, from_clients: bool) {
        let host = self.place();
        // The clients first: what it accepts later would reach no replica.
        let mut addresses: Vec<&str> = from_clients.then_some(&*host.clients).into_iter().collect();
        addresses.extend(from.into_iter().map(Self::host));
        host.cut_off(&addresses);
    }

    /// Ends [`cut_off`](Self::cut_off).
    ///
    /// # Panics
    /// As [`cut_off`](Self::cut_off).
    pub fn reconnect(&self) {
        self.place().reconnect();
    }

    fn place(&self) -> &Host {
        self.options.host.as_ref().expect("a network")
    }
}
