//! Which address holds which slots. When all slots are in use, the address with the most loses one. A connection with a request
//! in progress never loses its slot, so no address may have more requests in progress than there are slots without one. Each
//! connection of a trusted proxy counts as its own address. Every step takes O(log n).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use tokio::sync::Notify;

use crate::http::peer::Client;

/// Bodies of one address that are discarded at a time.
const MOST_DRAINING: usize = 16;

/// The state of a connection without a request in progress. The order is that in which the connections of one address lose their
/// slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rest {
    /// It reads the rest of a body before it sends the answer, which is ready.
    Draining,
    /// It is between requests, or within a request's head.
    Waiting,
    /// It streams the changes of a job.
    Streaming,
}

/// The state of an idle connection, and a number that shows since when. No two connections have the same rank.
pub(super) type Rank = (Rest, u64);

/// Whether a request may begin.
#[derive(Clone, Debug)]
pub(crate) enum Begin {
    Now,
    /// Its address has too many requests in progress. Notified when one ends.
    Later(Arc<Notify>),
    /// The connection has lost its slot.
    Lost,
}

/// All slots.
#[derive(Default)]
pub(super) struct Table {
    most: usize,
    /// Most requests in progress. A connection of HTTP/2 can have several.
    most_busy: usize,
    open: usize,
    busy: usize,
    /// Connections that lost their slots and are not closed yet.
    leaving: usize,
    last: u64,
    /// By number. Holders without connections are reused.
    holders: Vec<Holder>,
    free: Vec<usize>,
    numbers: HashMap<Client, usize>,
    /// The idle connections of holders with one slot.
    single: Queue,
    /// The holders with several slots and at least one idle connection: number of slots, and the holder's number.
    crowds: BTreeSet<(usize, usize)>,
}

/// Idle connections, in the order in which they lose their slots.
type Queue = BTreeMap<Rank, Resting>;

struct Resting {
    holder: usize,
    lost: Arc<Notify>,
}

/// An address, or one connection of a trusted proxy.
#[derive(Default)]
struct Holder {
    /// `None` for a connection of a trusted proxy.
    client: Option<Client>,
    /// Includes connections that lost their slots and are not closed yet.
    connections: usize,
    slots: usize,
    busy: usize,
    draining: usize,
    /// The rank of its connection in `single`, if it is there.
    single: Option<Rank>,
    /// Its idle connections while it holds several slots.
    resting: Queue,
    /// Wakes its requests that may not begin yet.
    turn: Option<Arc<Notify>>,
}

impl Table {
    pub(super) fn new(most: usize, most_busy: usize) -> Self {
        Self { most, most_busy, ..Self::default() }
    }

    /// Number of connections with a slot.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// Number of connections that lost their slots and are not closed yet.
    pub(super) fn leaving(&self) -> usize {
        self.leaving
    }

    /// Whether the client has a connection. Each connection of a trusted proxy is a client of its own.
    pub(super) fn knows(&self, client: Option<Client>) -> bool {
        client.is_some_and(|client| self.numbers.contains_key(&client))
    }

    /// Whether a slot for this client would only replace one connection by another. Otherwise, a client with fewer slots than the
    /// one with the most gets one more.
    pub(super) fn only_replaces(&self, client: Option<Client>) -> bool {
        let own = client
            .and_then(|client| self.numbers.get(&client))
            .map_or(0, |number| self.holders[*number].slots);
        let most = self.crowds.last().map_or(1, |(slots, _)| *slots);
        self.is_full() && own > 0 && own + 1 >= most
    }

    pub(super) fn is_full(&self) -> bool {
        self.open >= self.most
    }

    /// Adds a connection that waits for its first request. Returns the number of its holder. `lost` is notified when it loses its
    /// slot.
    pub(super) fn enter(&mut self, client: Option<Client>, lost: &Arc<Notify>) -> (usize, Rank) {
        let number = client.and_then(|client| self.numbers.get(&client).copied());
        let number = number.unwrap_or_else(|| self.add(client));
        self.holders[number].connections += 1;
        self.open += 1;
        self.resize(number, self.holders[number].slots + 1);
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

    /// Removes a closed connection. `rank`: its state; `None` if its request was in progress.
    pub(super) fn leave(&mut self, number: usize, rank: Option<Rank>) {
        if self.take_out(number, rank) {
            self.open -= 1;
            self.resize(number, self.holders[number].slots - 1);
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

    /// Whether there is a connection that may lose its slot.
    pub(super) fn has_idle(&self) -> bool {
        !self.crowds.is_empty() || !self.single.is_empty()
    }

    /// Takes the slot of the first connection, by rank, of the holder with the most slots. `None` if no connection is idle.
    pub(super) fn displace(&mut self) -> Option<Rest> {
        let (number, rank) = match self.crowds.last() {
            Some((_, number)) => (*number, *self.holders[*number].resting.first_key_value()?.0),
            None => self.single.first_key_value().map(|(rank, resting)| (resting.holder, *rank))?,
        };
        let resting = self.remove(number, rank)?;
        self.open -= 1;
        self.leaving += 1;
        self.resize(number, self.holders[number].slots - 1);
        resting.lost.notify_one();
        Some(rank.0)
    }

    /// Begins a request. One that is not `bounded` may always begin.
    pub(super) fn begin(&mut self, number: usize, rank: Rank, bounded: bool) -> Begin {
        if bounded && self.has_its_share(number) {
            return self.postpone(number, rank);
        }
        if self.remove(number, rank).is_none() {
            return Begin::Lost;
        }
        self.busy += 1;
        self.holders[number].busy += 1;
        Begin::Now
    }

    /// Begins another request of a connection that has one in progress.
    pub(super) fn begin_another(&mut self, number: usize, bounded: bool) -> Begin {
        if bounded && self.has_its_share(number) {
            return Begin::Later(self.holders[number].turn());
        }
        self.busy += 1;
        self.holders[number].busy += 1;
        Begin::Now
    }

    /// Ends a request of a connection that has more in progress.
    pub(super) fn end_another(&mut self, number: usize) {
        self.busy -= 1;
        self.holders[number].busy -= 1;
        self.holders[number].wake();
    }

    /// Whether the holder has as many requests in progress as it may have at present.
    fn has_its_share(&self, number: usize) -> bool {
        self.holders[number].busy >= self.most_busy.saturating_sub(self.busy)
    }

    fn postpone(&mut self, number: usize, rank: Rank) -> Begin {
        let holder = &mut self.holders[number];
        let queue = if holder.slots > 1 { &holder.resting } else { &self.single };
        if !queue.contains_key(&rank) {
            return Begin::Lost;
        }
        Begin::Later(holder.turn())
    }

    /// Makes a connection idle. Without a `rank`, its request ends. `None` if it has lost its slot.
    pub(super) fn rest(
        &mut self,
        number: usize,
        rank: Option<Rank>,
        rest: Rest,
        lost: &Arc<Notify>,
    ) -> Option<Rank> {
        self.take_out(number, rank).then(|| self.insert(number, rest, lost))
    }

    /// Whether one more body of the holder may be discarded. If so, call [`drained`](Self::drained) afterwards.
    pub(super) fn drain(&mut self, number: usize) -> bool {
        let draining = &mut self.holders[number].draining;
        let may = *draining < MOST_DRAINING;
        *draining += usize::from(may);
        may
    }

    pub(super) fn drained(&mut self, number: usize) {
        self.holders[number].draining -= 1;
    }

    /// Removes the connection from its state. `false` if it has lost its slot.
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
        let resting = Resting { holder: number, lost: Arc::clone(lost) };
        let holder = &mut self.holders[number];
        if holder.slots > 1 {
            if holder.resting.is_empty() {
                self.crowds.insert((holder.slots, number));
            }
            holder.resting.insert(rank, resting);
        } else {
            holder.single = Some(rank);
            self.single.insert(rank, resting);
        }
        rank
    }

    fn remove(&mut self, number: usize, rank: Rank) -> Option<Resting> {
        let holder = &mut self.holders[number];
        if holder.slots <= 1 {
            return self.single.remove(&rank);
        }
        let resting = holder.resting.remove(&rank)?;
        if holder.resting.is_empty() {
            self.crowds.remove(&(holder.slots, number));
        }
        Some(resting)
    }

    /// Sets the holder's number of slots. Holders with one slot share a queue, so their requests do not change the order of the
    /// holders.
    fn resize(&mut self, number: usize, slots: usize) {
        let holder = &mut self.holders[number];
        self.crowds.remove(&(holder.slots, number));
        if (holder.slots, slots) == (1, 2)
            && let Some(rank) = holder.single
            && let Some(resting) = self.single.remove(&rank)
        {
            holder.resting.insert(rank, resting);
        }
        if (holder.slots, slots) == (2, 1) {
            let left = holder.resting.pop_first();
            holder.single = left.as_ref().map(|(rank, _)| *rank);
            self.single.extend(left);
        }
        holder.slots = slots;
        if slots > 1 && !holder.resting.is_empty() {
            self.crowds.insert((slots, number));
        }
    }
}

impl Holder {
    fn turn(&mut self) -> Arc<Notify> {
        Arc::clone(self.turn.get_or_insert_default())
    }

    fn wake(&self) {
        if let Some(turn) = &self.turn {
            turn.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
