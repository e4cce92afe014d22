//! How fast the queue drains, to tell clients of a full queue when to come back.

use tokio::time::Instant;

/// What a client is told while the rate is not known.
const UNKNOWN_SECONDS: u64 = 5;
const LONGEST_SECONDS: u64 = 60;
/// Weight of the newest look in the average.
const WEIGHT: f64 = 0.3;
/// Room for this share of the queue is worth coming back for.
const ROOM: f64 = 0.01;

/// Jobs that ended per second, averaged over some looks. Jobs that other proxies accepted are not seen, so with several
/// proxies the rate is too low and clients wait longer, never shorter.
#[derive(Debug, Default)]
pub(super) struct DrainRate {
    last: Option<(Instant, u64, u64)>,
    per_second: f64,
}

impl DrainRate {
    /// Takes a look: how many jobs were accepted since the start, how many have not ended. Returns in how many seconds
    /// a full queue may have room.
    pub(super) fn retry_after(&mut self, now: Instant, accepted: u64, outstanding: u64) -> u64 {
        if let Some((then, accepted_then, outstanding_then)) = self.last.replace((now, accepted, outstanding))
        {
            let ended = (accepted - accepted_then + outstanding_then).saturating_sub(outstanding);
            let seconds = now.duration_since(then).as_secs_f64().max(0.001);
            self.per_second += WEIGHT * (ended as f64 / seconds - self.per_second);
        }
        if self.per_second < 0.1 {
            return UNKNOWN_SECONDS;
        }
        let seconds = outstanding as f64 * ROOM / self.per_second;
        (seconds.ceil() as u64).clamp(1, LONGEST_SECONDS)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_wait_follows_the_measured_rate() {
        let (mut rate, start) = (DrainRate::default(), Instant::now());
        assert_eq!(rate.retry_after(start, 0, 100_000), UNKNOWN_SECONDS);
        let mut wait = 0;
        for second in 1..=60 {
            // 100 jobs a second end, as many are accepted.
            wait = rate.retry_after(start + Duration::from_secs(second), 100 * second, 100_000);
        }
        assert_eq!(wait, 11);
    }

    #[test]
    fn a_queue_that_does_not_drain_says_so() {
        let (mut rate, start) = (DrainRate::default(), Instant::now());
        rate.retry_after(start, 0, 100);
        assert_eq!(rate.retry_after(start + Duration::from_secs(1), 0, 100), UNKNOWN_SECONDS);
        assert_eq!(rate.retry_after(start + Duration::from_secs(2), 50, 150), UNKNOWN_SECONDS);
    }

    #[test]
    fn the_wait_is_bounded() {
        let (mut rate, start) = (DrainRate::default(), Instant::now());
        rate.retry_after(start, 0, 1_000_001);
        assert_eq!(rate.retry_after(start + Duration::from_secs(1), 0, 1_000_000), LONGEST_SECONDS);
        assert_eq!(rate.retry_after(start + Duration::from_secs(2), 0, 0), 1);
    }
}
