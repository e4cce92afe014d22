//! What clients without a key have spent, in a table of bounded size.

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

/// Clients remembered one by one, some 100 bytes each; beyond that they share [`BUCKETS`].
const MOST_CLIENTS: usize = 100_000;
const BUCKETS: u64 = 4096;
/// Requests of different clients seldom wait for each other.
const SHARDS: usize = 64;

/// Whose requests are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Client {
    V4(u32),
    /// The first half of an address: the rest is the client's to choose (RFC 6177).
    V6(u64),
    /// One of many, while there are too many to remember each.
    Bucket(u64),
}

/// The windows of all clients.
#[derive(Debug)]
pub(super) struct Clients {
    shards: Vec<Mutex<HashMap<Client, Window>>>,
    is_crowded: AtomicBool,
    /// Seeded anew in each process, so that nobody can choose a bucket.
    hasher: RandomState,
}

impl Clients {
    pub(super) fn new() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, is_crowded: AtomicBool::new(false), hasher: RandomState::new() }
    }

    /// With whom requests of that address are counted.
    pub(super) fn client(&self, origin: IpAddr) -> Client {
        if self.is_crowded.load(Ordering::Relaxed) {
            return Client::Bucket(self.hasher.hash_one(Client::of(origin)) % BUCKETS);
        }
        Client::of(origin)
    }

    /// Works on the client's window.
    pub(super) fn with<T>(&self, client: Client, work: impl FnOnce(&mut Window) -> T) -> T {
        // Each shard has a share of all hashes, so the remainder is one of them.
        let index = (self.hasher.hash_one(client) % SHARDS as u64) as usize;
        work(lock(&self.shards[index]).entry(client).or_default())
    }

    /// Forgets clients whose limit is whole again.
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

impl Client {
    /// That of a canonical address.
    pub(crate) fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::V4(address.to_bits()),
            IpAddr::V6(address) => Self::V6((address.to_bits() >> 64) as u64),
        }
    }
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
