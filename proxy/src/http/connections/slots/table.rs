//! Which address holds which places. When all are taken, the address that holds the most loses one. A connection with a
//! request in progress never loses its place, so no address may have more requests in progress than there are places
//! without one. Each connection of a trusted proxy counts as an address of its own. Every step takes O(log n).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use tokio::sync::Notify;

use crate::edge::rate_limit::Client;

/// Unread bodies of one address that are read on and discarded at a time.
const MOST_DRAINING: usize = 16;

/// What a connection does that has no request in progress, in the order in which those of one address lose their places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rest {
    /// It reads the rest of a body before it sends the answer, which is ready.
    Draining,
    /// It is between requests, or in the middle of a request's head.
    Waiting,
    /// It streams the changes of a job.
    Streaming,
}

/// What a connection does at rest, and since when, as a number. No two connections ever have the same.
pub(super) type Rank = (Rest, u64);

/// Whether a request may begin.
#[derive(Clone, Debug)]
pub(in crate::http::connections) enum Begin {
    Now,
    /// Its address has as many in progress as it may. Notified when one ends.
    Later(Arc<Notify>),
    /// The connection has lost its place.
    Lost,
}

/// All places.
#[derive(Default)]
pub(super) struct Table {
    most: usize,
    open: usize,
    busy: usize,
    /// Connections that lost their places and are not closed yet.
    leaving: usize,
    last: u64,
    /// By number; those that hold nothing are free to be used again.
    holders: Vec<Holder>,
    free: Vec<usize>,
    numbers: HashMap<Client, usize>,
    /// The connections at rest of those that hold one place.
    single: Queue,
    /// Those that hold several places, of which one at least is at rest: how many, and the holder's number.
    crowds: BTreeSet<(usize, usize)>,
}

/// Connections at rest, in the order in which they make room.
type Queue = BTreeMap<Rank, Seat>;

struct Seat {
    holder: usize,
    lost: Arc<Notify>,
}

/// An address, or one connection of a trusted proxy.
#[derive(Default)]
struct Holder {
    /// `None` for a connection of a trusted proxy.
    client: Option<Client>,
    /// Those that lost their places and are not closed yet included.
    connections: usize,
    places: usize,
    busy: usize,
    draining: usize,
    /// The rank of its connection in `single`, if it is there.
    single: Option<Rank>,
    /// Its connections at rest while it holds several places.
    resting: Queue,
    /// What its requests that may not begin yet wait for.
    turn: Option<Arc<Notify>>,
}

impl Table {
    pub(super) fn new(most: usize) -> Self {
        Self { most, ..Self::default() }
    }

    /// Number of connections with a place.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// Number of connections that lost their places and are not closed yet.
    pub(super) fn leaving(&self) -> usize {
        self.leaving
    }

    pub(super) fn is_full(&self) -> bool {
        self.open >= self.most
    }

    /// Adds a connection, which waits for its first request. Returns the number of its holder. `lost` is notified when it
    /// loses its place.
    pub(super) fn enter(&mut self, client: Option<Client>, lost: &Arc<Notify>) -> (usize, Rank) {
        let number = client.and_then(|client| self.numbers.get(&client).copied());
        let number = number.unwrap_or_else(|| self.add(client));
        self.holders[number].connections += 1;
        self.open += 1;
        self.resize(number, self.holders[number].places + 1);
        (number, self.insert(number, Rest::Waiting, lost))
    }

    fn add(&mut self, client: Option<Client>) -> usize {
        let holder = Holder { client, ..Holder::default() };
        let number = self.free.pop().unwrap_or(self.holders.len());
        match self.holders.get_mut(number) {
            Some(free) => *free = holder,
            None => self.holders.push(holder),
        }
        if let Some(client) = client {
            self.numbers.insert(client, number);
        }
        number
    }

    /// Removes a connection that is closed. `rank`: what it did; `None` when its request was in progress.
    pub(super) fn leave(&mut self, number: usize, rank: Option<Rank>) {
        if self.take_out(number, rank) {
            self.open -= 1;
            self.resize(number, self.holders[number].places - 1);
        } else {
            self.leaving -= 1;
        }
        let holder = &mut self.holders[number];
        holder.connections -= 1;
        if holder.connections == 0 {
            if let Some(client) = holder.client {
                self.numbers.remove(&client);
            }
            self.free.push(number);
        } else {
            holder.wake();
        }
    }

    /// Takes the place from the first connection, by rank, of the holder with the most places; `None` when none is at rest.
    pub(super) fn displace(&mut self) -> Option<Rest> {
        let (number, rank) = match self.crowds.last() {
            Some((_, number)) => (*number, *self.holders[*number].resting.first_key_value()?.0),
            None => self.single.first_key_value().map(|(rank, seat)| (seat.holder, *rank))?,
        };
        let seat = self.remove(number, rank)?;
        self.open -= 1;
        self.leaving += 1;
        self.resize(number, self.holders[number].places - 1);
        seat.lost.notify_one();
        Some(rank.0)
    }

    /// Begins a request. One that is not `bounded` always may.
    pub(super) fn begin(&mut self, number: usize, rank: Rank, bounded: bool) -> Begin {
        if bounded && self.holders[number].busy >= self.most - self.busy {
            return self.postpone(number, rank);
        }
        if self.remove(number, rank).is_none() {
            return Begin::Lost;
        }
        self.busy += 1;
        self.holders[number].busy += 1;
        Begin::Now
    }

    fn postpone(&mut self, number: usize, rank: Rank) -> Begin {
        let holder = &mut self.holders[number];
        let queue = if holder.places > 1 { &holder.resting } else { &self.single };
        if !queue.contains_key(&rank) {
            return Begin::Lost;
        }
        Begin::Later(Arc::clone(holder.turn.get_or_insert_default()))
    }

    /// Puts a connection to rest; its request ends if it has no `rank`. `None` when it has lost its place.
    pub(super) fn rest(
        &mut self,
        number: usize,
        rank: Option<Rank>,
        rest: Rest,
        lost: &Arc<Notify>,
    ) -> Option<Rank> {
        self.take_out(number, rank).then(|| self.insert(number, rest, lost))
    }

    /// Whether the holder may have one more body discarded. If so, [`drained`](Self::drained) must follow.
    pub(super) fn drain(&mut self, number: usize) -> bool {
        let draining = &mut self.holders[number].draining;
        let may = *draining < MOST_DRAINING;
        *draining += usize::from(may);
        may
    }

    pub(super) fn drained(&mut self, number: usize) {
        self.holders[number].draining -= 1;
    }

    /// Ends the connection's request, or its rest. `false` if it has lost its place.
    fn take_out(&mut self, number: usize, rank: Option<Rank>) -> bool {
        let Some(rank) = rank else {
            self.busy -= 1;
            self.holders[number].busy -= 1;
            self.holders[number].wake();
            return true;
        };
        self.remove(number, rank).is_some()
    }

    fn insert(&mut self, number: usize, rest: Rest, lost: &Arc<Notify>) -> Rank {
        self.last += 1;
        let rank = (rest, self.last);
        let seat = Seat { holder: number, lost: Arc::clone(lost) };
        let holder = &mut self.holders[number];
        if holder.places > 1 {
            if holder.resting.is_empty() {
                self.crowds.insert((holder.places, number));
            }
            holder.resting.insert(rank, seat);
        } else {
            holder.single = Some(rank);
            self.single.insert(rank, seat);
        }
        rank
    }

    fn remove(&mut self, number: usize, rank: Rank) -> Option<Seat> {
        let holder = &mut self.holders[number];
        if holder.places <= 1 {
            return self.single.remove(&rank);
        }
        let seat = holder.resting.remove(&rank)?;
        if holder.resting.is_empty() {
            self.crowds.remove(&(holder.places, number));
        }
        Some(seat)
    }

    /// Sets the holder's number of places. Holders of one place share a queue, so that their requests do not change the order
    /// of the holders.
    fn resize(&mut self, number: usize, places: usize) {
        let holder = &mut self.holders[number];
        self.crowds.remove(&(holder.places, number));
        if (holder.places, places) == (1, 2)
            && let Some(rank) = holder.single
            && let Some(seat) = self.single.remove(&rank)
        {
            holder.resting.insert(rank, seat);
        }
        if (holder.places, places) == (2, 1) {
            let left = holder.resting.pop_first();
            holder.single = left.as_ref().map(|(rank, _)| *rank);
            self.single.extend(left);
        }
        holder.places = places;
        if places > 1 && !holder.resting.is_empty() {
            self.crowds.insert((places, number));
        }
    }
}

impl Holder {
    fn wake(&self) {
        if let Some(turn) = &self.turn {
            turn.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
