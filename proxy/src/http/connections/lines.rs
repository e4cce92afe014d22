//! One line for each client. The clients take turns.

use std::collections::{HashMap, VecDeque};

use crate::http::peer::Client;

/// Items in lines. The client is `None` for trusted proxies, which share a line.
pub(super) struct Lines<T> {
    lines: HashMap<Option<Client>, VecDeque<T>>,
    /// The clients with items, the next one first.
    order: VecDeque<Option<Client>>,
    count: usize,
}

impl<T> Default for Lines<T> {
    fn default() -> Self {
        Self { lines: HashMap::new(), order: VecDeque::new(), count: 0 }
    }
}

impl<T> Lines<T> {
    /// A client that is `preferred` and has no other item is the next one.
    pub(super) fn push(&mut self, client: Option<Client>, preferred: bool, item: T) {
        let line = self.lines.entry(client).or_default();
        match (line.is_empty(), preferred) {
            (true, true) => self.order.push_front(client),
            (true, false) => self.order.push_back(client),
            (false, _) => {}
        }
        line.push_back(item);
        self.count += 1;
    }

    /// Number of items.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The next item.
    pub(super) fn first(&self) -> Option<&T> {
        self.lines.get(self.order.front()?)?.front()
    }

    /// The client of the next item.
    pub(super) fn next(&self) -> Option<Option<Client>> {
        self.order.front().copied()
    }

    /// Whether a client has several items. Otherwise none can be removed without keeping its client out.
    pub(super) fn has_long_line(&self) -> bool {
        self.lines.len() < self.count
    }

    /// Removes the first item of the longest line, as a new connection replaces an old one that has a slot.
    pub(super) fn shorten(&mut self) -> Option<T> {
        let line = self.lines.values_mut().max_by_key(|line| line.len()).filter(|line| line.len() > 1)?;
        let item = line.pop_front();
        self.count -= usize::from(item.is_some());
        item
    }

    pub(super) fn pop(&mut self) -> Option<T> {
        let client = self.order.pop_front()?;
        let line = self.lines.get_mut(&client)?;
        let item = line.pop_front();
        self.count -= usize::from(item.is_some());
        if line.is_empty() {
            self.lines.remove(&client);
        } else {
            self.order.push_back(client);
        }
        item
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_take_turns() {
        let client = |number| Some(Client::V4(number));
        let mut lines = Lines::default();
        for (number, item) in [(1, "a"), (1, "b"), (1, "c"), (2, "d"), (3, "e"), (3, "f")] {
            lines.push(client(number), false, item);
        }
        lines.push(client(4), true, "new");
        let order: Vec<_> = std::iter::from_fn(|| lines.pop()).collect();
        assert_eq!(order, ["new", "a", "d", "e", "b", "f", "c"]);
        assert!(!lines.has_long_line() && lines.shorten().is_none());
        assert!(lines.lines.is_empty() && lines.order.is_empty() && lines.count == 0);
        lines.push(None, true, "g");
        assert_eq!((lines.next(), lines.pop(), lines.next()), (Some(None), Some("g"), None));
    }

    #[test]
    fn the_longest_line_is_shortened() {
        let mut lines = Lines::default();
        for (number, item) in [(1, "a"), (2, "b"), (2, "c"), (2, "d"), (3, "e"), (3, "f")] {
            lines.push(Some(Client::V4(number)), false, item);
        }
        assert!(lines.has_long_line());
        assert_eq!(lines.shorten(), Some("b"));
        assert!(lines.shorten().is_some() && lines.shorten().is_some());
        assert!(!lines.has_long_line() && lines.shorten().is_none());
        let order: Vec<_> = std::iter::from_fn(|| lines.pop()).collect();
        assert_eq!(order, ["a", "d", "f"]);
    }
}
