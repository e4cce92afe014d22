//! How far the searches of a lane have come in its streams, and in which order a take reads them.

use tepal_shared::job::{ModelName, Priority, Stream};

/// The order in which the streams are read, take by take: high is first in eleven of sixteen takes, normal in three and low
/// in two. So a saturated high priority leaves shares of 19 and 12 per cent to the others.
const ORDERS: [[Priority; 3]; 16] = {
    use Priority::{High, Low, Normal};
    let mut orders = [[High, Normal, Low]; 16];
    orders[2] = [Normal, High, Low];
    orders[5] = [Low, High, Normal];
    orders[7] = [Normal, High, Low];
    orders[10] = [Normal, High, Low];
    orders[13] = [Low, High, Normal];
    orders
};

/// Where a search begins, and the cursor of one that has reached the end.
pub(super) const OLDEST: &str = "0-0";

/// The streams of the model in the order in which its take number `takes` reads them.
pub(super) fn order(model: ModelName, takes: usize) -> [Stream; 3] {
    ORDERS[takes % ORDERS.len()].map(|priority| Stream { model, priority })
}

/// The positions in all partitions.
#[derive(Clone, Debug, Default)]
pub struct Positions {
    /// The partition of the next take.
    next: u8,
    partitions: Vec<Position>,
}

/// The position in one partition.
#[derive(Clone, Debug)]
pub struct Position {
    /// Number of takes; decides the order of the streams.
    takes: usize,
    /// The tick after which a take last searched for entries that are due again.
    searched_after: Option<u32>,
    /// Where the next search continues in the stream of each priority; `0-0` = at the oldest entry.
    due_from: [String; 3],
    /// How far the search for suspects has come in each stream.
    searched: [Search; 3],
}

/// A search of all pending entries of a stream. With many entries it takes several calls.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Search {
    /// No call has started at the oldest entry yet.
    Wanted,
    Begun,
    Ended,
}

impl Positions {
    /// At the beginning of all streams.
    #[must_use]
    pub fn new(partitions: u16) -> Self {
        Self { next: 0, partitions: vec![Position::new(); usize::from(partitions)] }
    }

    /// All partitions, beginning with that of the next take.
    pub fn in_turn(&self) -> impl Iterator<Item = u8> + use<> {
        let (next, count) = (usize::from(self.next), self.partitions.len());
        (0..count).map(move |place| ((next + place) % count) as u8)
    }

    /// The next take begins with this partition.
    pub fn begin_with(&mut self, partition: u8) {
        self.next = partition;
    }

    /// The next take begins with the partition after this one.
    pub fn begin_after(&mut self, partition: u8) {
        self.next = ((usize::from(partition) + 1) % self.partitions.len().max(1)) as u8;
    }

    /// The position in a partition.
    ///
    /// # Panics
    /// When the queue has no such partition.
    #[must_use]
    pub fn of(&self, partition: u8) -> &Position {
        &self.partitions[usize::from(partition)]
    }

    /// The same, to change it.
    ///
    /// # Panics
    /// When the queue has no such partition.
    pub fn of_mut(&mut self, partition: u8) -> &mut Position {
        &mut self.partitions[usize::from(partition)]
    }
}

impl Position {
    fn new() -> Self {
        Self {
            takes: 0,
            searched_after: None,
            due_from: [OLDEST; 3].map(str::to_owned),
            searched: [Search::Wanted; 3],
        }
    }

    /// Begins a take. Returns the streams of the model in the order in which it reads them.
    pub fn next_order(&mut self, model: ModelName) -> [Stream; 3] {
        self.takes = self.takes.wrapping_add(1);
        order(model, self.takes)
    }

    /// Where a search of these streams continues.
    #[must_use]
    pub fn due_from(&self, streams: [Stream; 3]) -> [String; 3] {
        streams.map(|stream| self.due_from[place(stream)].clone())
    }

    /// Whether it is time to search for entries that are due again, after the tick with this number.
    #[must_use]
    pub fn is_due(&self, tick: u32) -> bool {
        self.searched_after != Some(tick) || self.is_unfinished()
    }

    /// Whether the last search for due entries had enough jobs before it reached the end.
    fn is_unfinished(&self) -> bool {
        self.due_from.iter().any(|from| from != OLDEST)
    }

    /// A call searches for due entries after this tick.
    pub fn searches_after(&mut self, tick: u32) {
        self.searched_after = Some(tick);
    }

    /// It searched these streams, each as far as its cursor.
    pub fn searched_to(&mut self, streams: [Stream; 3], cursors: &[String]) {
        for (stream, cursor) in streams.into_iter().zip(cursors) {
            let (from, search) = (&mut self.due_from[place(stream)], &mut self.searched[place(stream)]);
            if *search == Search::Wanted && from == OLDEST {
                *search = Search::Begun;
            }
            if *search == Search::Begun && cursor == OLDEST {
                *search = Search::Ended;
            }
            from.clone_from(cursor);
        }
    }

    /// Whether the search for suspects has reached the end of all streams.
    #[must_use]
    pub fn is_searched(&self) -> bool {
        self.searched == [Search::Ended; 3]
    }

    /// The next call begins a search for suspects.
    pub fn restart_search(&mut self) {
        self.searched = [Search::Wanted; 3];
    }
}

/// The place of a stream's priority in [`Priority::ALL`].
fn place(stream: Stream) -> usize {
    match stream.priority {
        Priority::High => 0,
        Priority::Normal => 1,
        Priority::Low => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_priority_comes_first_often_enough() {
        let first = |priority| ORDERS.iter().filter(|order| order[0] == priority).count();
        assert_eq!(Priority::ALL.map(first), [11, 3, 2]);
    }

    #[test]
    fn every_take_reads_each_stream_once() {
        for order in ORDERS {
            assert!(Priority::ALL.iter().all(|priority| order.contains(priority)));
        }
    }
}
