//! A server that is cut off from others in its network.

use super::RedisServer;
use crate::network::Host;

impl RedisServer {
    /// Cuts it off from these servers, and perhaps from its clients and the harness. Connections stay open, but nothing arrives.
    ///
    /// # Panics
    /// When it is in no [network](crate::network).
    pub fn cut_off<'a>(&self, from: impl IntoIterator<Item = &'a Self>, from_clients: bool) {
        let host = self.place();
        let mut addresses: Vec<_> = from.into_iter().map(Self::host).collect();
        addresses.extend(from_clients.then_some(&*host.clients));
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
