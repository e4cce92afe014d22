//! The requests of clients without a key, in a table of bounded size.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher as _,
    net::IpAddr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use super::window::{Moment, Window};
use crate::http::peer::Client;

/// Clients that are counted one by one, about 100 bytes each. More clients share [`BUCKETS`].
const MOST_CLIENTS: usize = 100_000;
const BUCKETS: u64 = 4096;
/// Shards, so that requests of different clients seldom wait for each other.
const SHARDS: usize = 64;

/// The windows of all clients.
#[derive(Debug)]
pub(super) struct Clients {
    shards: Vec<Mutex<HashMap<Client, Window>>>,
    is_crowded: AtomicBool,
    /// Its seed differs in each process, so nobody can choose a bucket.
    hasher: RandomState,
}

impl Clients {
    pub(super) fn new() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, is_crowded: AtomicBool::new(false), hasher: RandomState::new() }
    }

    /// The client that requests of this address are counted for.
    pub(super) fn client(&self, origin: IpAddr) -> Client {
        if self.is_crowded.load(Ordering::Relaxed) {
            return Client::Bucket(self.hasher.hash_one(Client::of(origin)) % BUCKETS);
        }
        Client::of(origin)
    }

    /// Applies `work` to the client's window.
    pub(super) fn with<T>(&self, client: Client, work: impl FnOnce(&mut Window) -> T) -> T {
        // The remainder is a valid index.
        let index = (self.hasher.hash_one(client) % SHARDS as u64) as usize;
        work(lock(&self.shards[index]).entry(client).or_default())
    }

    /// Removes clients that have spent nothing in the last minute.
    pub(super) fn tidy(&self, now: Moment) {
        let mut left = 0;
        for shard in &self.shards {
            let mut windows = lock(shard);
            windows.retain(|_, window| !window.is_whole(now));
            windows.shrink_to_fit();
            left += windows.len();
        }
        self.is_crowded.store(left > MOST_CLIENTS, Ordering::Relaxed);
    }
}

fn lock(shard: &Mutex<HashMap<Client, Window>>) -> MutexGuard<'_, HashMap<Client, Window>> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_crowd_shares_buckets_and_is_forgotten_when_it_has_gone() {
        let (clients, now) = (Clients::new(), Moment::since(Instant::now()));
        let spend = |number: u32| {
            let client = clients.client(IpAddr::V4(number.into()));
            clients.with(client, |window| window.add(now, 1));
        };
        let len = || clients.shards.iter().map(|shard| lock(shard).len()).sum::<usize>();
        (0..=MOST_CLIENTS as u32).for_each(spend);
        clients.tidy(now);
        let before = len();
        assert_eq!(before, MOST_CLIENTS + 1);
        (0..2 * MOST_CLIENTS as u32).for_each(|number| spend(number << 8));
        assert!(len() <= before + BUCKETS as usize);
        clients.tidy(now.after_seconds(61));
        assert_eq!(len(), 0);
        assert!(!clients.is_crowded.load(Ordering::Relaxed));
    }
}
