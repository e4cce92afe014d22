//! How long a model takes, to decide which thread runs a batch.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Longest computation on a runtime thread. A longer one gets its own thread, which costs two switches of threads: some 0.1
/// ms each on cores that slept. The advice for servers is 10 to 100 us (Alice Ryhl, "Async: What is blocking?"). But a
/// worker's threads serve nothing that urgent, and a lone row with cold caches takes longer.
pub(super) const LONGEST_STEP: Duration = Duration::from_micros(500);

/// How long a row took recently.
#[derive(Debug)]
pub(super) struct Pace {
    /// Nanoseconds, a moving average. Before the first batch it is larger than any time.
    per_row: AtomicU64,
}

impl Pace {
    pub(super) fn unknown() -> Self {
        Self { per_row: AtomicU64::new(u64::MAX) }
    }

    /// Expected time of a batch of this many rows.
    pub(super) fn expects(&self, rows: usize) -> Duration {
        Duration::from_nanos(self.per_row.load(Ordering::Relaxed).saturating_mul(rows as u64))
    }

    /// How many rows take at most this long, at least one. Before the first batch it is one.
    pub(super) fn rows_within(&self, time: Duration) -> usize {
        let per_row = u128::from(self.per_row.load(Ordering::Relaxed).max(1));
        usize::try_from(time.as_nanos() / per_row).unwrap_or(usize::MAX).max(1)
    }

    /// Runs a batch and remembers how long it took.
    pub(super) fn measure<T>(&self, rows: usize, work: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let done = work();
        let took = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX) / rows.max(1) as u64;
        let before = self.per_row.load(Ordering::Relaxed);
        // Concurrent batches may overwrite each other's measurements. One more or less does not matter.
        let average = if before == u64::MAX { took } else { before - before / 4 + took / 4 };
        self.per_row.store(average, Ordering::Relaxed);
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_expected_to_take_what_its_rows_took_of_late() {
        let pace = Pace::unknown();
        assert!(pace.expects(1) > LONGEST_STEP);
        assert_eq!(pace.rows_within(Duration::from_secs(1)), 1);

        pace.measure(1_000, || std::thread::sleep(Duration::from_millis(2)));
        assert!((Duration::from_millis(2)..Duration::from_secs(2)).contains(&pace.expects(1_000)));
        assert_eq!(pace.rows_within(10 * pace.expects(100)), 1_000);

        (0..200).for_each(|_| pace.measure(1_000, || ()));
        assert!(pace.expects(1_000) < Duration::from_millis(1), "{:?}", pace.expects(1_000));
    }
}
