//! A memory budget that all clients share. Each holder has a little for itself and takes the rest from the budget. So clients
//! that send much and never finish cannot take all memory, and requests of usual size never compete with them.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// A meter reserves this much at a time.
const METER_STEP: usize = 64 << 10;

/// The memory that all holders together may take.
#[derive(Debug)]
pub(crate) struct Budget {
    /// Bytes that each holder has for itself.
    free: usize,
    /// Bytes that all holders share.
    total: usize,
    left: AtomicUsize,
}

/// The memory of one holder. It is released when this is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Arc<Budget>,
    held: usize,
}

impl Budget {
    pub(crate) fn new(free: usize, total: usize) -> Arc<Self> {
        Arc::new(Self { free, total, left: AtomicUsize::new(total) })
    }

    /// An empty share.
    pub(crate) fn share(self: &Arc<Self>) -> Share {
        Share { budget: Arc::clone(self), held: 0 }
    }

    fn counted(&self, bytes: usize) -> usize {
        bytes.saturating_sub(self.free)
    }
}

impl Share {
    /// Reserves so many more bytes. `false` if they are not available; then nothing changes.
    #[must_use]
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        let grown = self.held.saturating_add(bytes);
        let more = self.budget.counted(grown) - self.budget.counted(self.held);
        let take = |left: usize| left.checked_sub(more);
        let is_there =
            more == 0 || self.budget.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok();
        if is_there {
            self.held = grown;
        }
        is_there
    }

    /// Why so many more bytes are not available.
    fn obstacle(&self, bytes: usize) -> Exceeded {
        let total = self.budget.total;
        let fits = self.budget.counted(self.held.saturating_add(bytes)) <= total;
        if fits { Exceeded::Now } else { Exceeded::Always(total) }
    }

    /// Reserves more bytes, up to so many in total. `false` if they are not available; then nothing changes.
    #[must_use]
    pub(crate) fn grow_to(&mut self, bytes: usize) -> bool {
        self.grow(bytes.saturating_sub(self.held))
    }

    /// Releases all but so many bytes.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        let less = self.held.min(bytes);
        let back = self.budget.counted(self.held) - self.budget.counted(less);
        self.budget.left.fetch_add(back, Ordering::Relaxed);
        self.held = less;
    }

    /// Releases everything.
    pub(crate) fn clear(&mut self) {
        self.shrink_to(0);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Reserves the memory of a document while it is parsed.
#[derive(Debug)]
pub(crate) struct Meter {
    /// `None` when nothing is counted.
    share: Option<Share>,
    /// Reserved and not used yet.
    credit: usize,
    exceeded: Option<Exceeded>,
}

/// Why memory was not available.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exceeded {
    /// Others hold it.
    Now,
    /// The document needs more than these bytes, which are all there are.
    Always(usize),
}

impl Meter {
    /// Counts nothing.
    pub(crate) fn off() -> Self {
        Self { share: None, credit: 0, exceeded: None }
    }

    /// Whether something is counted.
    pub(crate) fn is_on(&self) -> bool {
        self.share.is_some()
    }

    /// Adds to what is reserved already.
    pub(crate) fn on(share: Share) -> Self {
        Self { share: Some(share), credit: 0, exceeded: None }
    }

    /// Uses so many bytes. `false` if they are not available.
    #[must_use]
    pub(crate) fn take(&mut self, bytes: usize) -> bool {
        let Some(share) = &mut self.share else { return true };
        if bytes > self.credit {
            let Some(more) = [bytes.max(METER_STEP), bytes].into_iter().find(|more| share.grow(*more)) else {
                self.exceeded = Some(share.obstacle(bytes));
                return false;
            };
            self.credit += more;
        }
        self.credit -= bytes;
        true
    }

    /// Why memory was not available at some time.
    pub(crate) fn exceeded(&self) -> Option<Exceeded> {
        self.exceeded
    }

    /// Releases all but so many bytes.
    pub(crate) fn finish(self, bytes: usize) -> Option<Share> {
        let mut share = self.share?;
        share.shrink_to(bytes);
        Some(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_holders_never_compete_with_large_ones() {
        let budget = Budget::new(10, 100);
        let mut large = budget.share();
        assert!(large.grow(10) && large.grow(60) && large.grow(40));
        assert!(!large.grow(1));
        let mut others: Vec<Share> = (0..50).map(|_| budget.share()).collect();
        assert!(others.iter_mut().all(|share| share.grow(10)));
        assert!(!others[0].grow(1));
        drop(large);
        assert!(others[0].grow(100));
        assert!(!others[0].grow(usize::MAX));
    }

    #[test]
    fn what_is_given_back_is_there_again() {
        let budget = Budget::new(0, 8);
        let mut share = budget.share();
        for _ in 0..3 {
            assert!(share.grow(8) && !share.grow(1));
            share.clear();
        }
    }

    #[test]
    fn what_turns_out_to_be_too_much_is_given_back() {
        let budget = Budget::new(10, 100);
        let mut share = budget.share();
        assert!(share.grow(110));
        for (bytes, free) in [(200, 0), (60, 50), (60, 50), (5, 100)] {
            share.shrink_to(bytes);
            assert!(budget.share().grow(10 + free) && !budget.share().grow(11 + free), "{bytes}");
        }
        assert!(share.grow(105) && !share.grow(1));
    }

    #[test]
    fn a_meter_takes_what_is_used_and_gives_it_back() {
        let budget = Budget::new(0, 140_000);
        let mut meter = Meter::on(budget.share());
        assert!((0..1000).all(|_| meter.take(65)));
        assert!(meter.take(30_000) && meter.exceeded().is_none());
        assert!(!meter.take(100_000));
        assert_eq!(meter.exceeded(), Some(Exceeded::Always(140_000)));
        let share = meter.finish(40_000);
        let mut other = Meter::on(budget.share());
        assert!(!other.take(110_000) && other.exceeded() == Some(Exceeded::Now));
        drop(share);
        assert!(budget.share().grow(140_000));
        assert!(Meter::off().take(usize::MAX));
    }
}
