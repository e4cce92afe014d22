//! How fast the queue drains. Clients of a full queue get their `Retry-After` from it.

use tokio::time::Instant;

const LONGEST_SECONDS: u64 = 60;
/// Weight of the newest value in the moving average.
const WEIGHT: f64 = 0.3;
/// A client should come back when this share of the queue is free.
const ROOM: f64 = 0.01;

/// Ended jobs per second, as a moving average.
#[derive(Debug, Default)]
pub(super) struct DrainRate {
    last: Option<(Instant, u64)>,
    per_second: f64,
}

impl DrainRate {
    /// Adds a measurement: the number of jobs that ever ended, and of jobs that have not ended. Returns after how many seconds a
    /// full queue may have room; `None` if that is unknown, or if no job ends.
    pub(super) fn retry_after(&mut self, now: Instant, ended: u64, outstanding: u64) -> Option<u64> {
        if let Some((then, ended_then)) = self.last.replace((now, ended)) {
            // A smaller number means that Redis lost its data.
            let ended = ended.saturating_sub(ended_then);
            let seconds = now.duration_since(then).as_secs_f64().max(0.001);
            self.per_second += WEIGHT * (ended as f64 / seconds - self.per_second);
        }
        if self.per_second < 0.1 {
            return None;
        }
        let seconds = outstanding as f64 * ROOM / self.per_second;
        Some((seconds.ceil() as u64).clamp(1, LONGEST_SECONDS))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_wait_follows_the_measured_rate() {
        let (mut rate, start) = (DrainRate::default(), Instant::now());
        assert_eq!(rate.retry_after(start, 7_000, 100_000), None);
        let mut wait = None;
        for second in 1..=60 {
            wait = rate.retry_after(start + Duration::from_secs(second), 7_000 + 100 * second, 100_000);
        }
        assert_eq!(wait, Some(11));
    }

    #[test]
    fn nothing_is_known_of_a_queue_that_does_not_drain() {
        let (mut rate, start) = (DrainRate::default(), Instant::now());
        rate.retry_after(start, 50, 100);
        assert_eq!(rate.retry_after(start + Duration::from_secs(1), 50, 150), None);
        // As after a loss of data.
        assert_eq!(rate.retry_after(start + Duration::from_secs(2), 0, 150), None);
    }

    #[test]
    fn the_wait_is_bounded() {
        let (mut rate, start) = (DrainRate::default(), Instant::now());
        rate.retry_after(start, 0, 1_000_001);
        assert_eq!(rate.retry_after(start + Duration::from_secs(1), 1, 1_000_000), Some(LONGEST_SECONDS));
        assert_eq!(rate.retry_after(start + Duration::from_secs(2), 1, 0), Some(1));
    }
}
