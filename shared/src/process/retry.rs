//! Pauses between tries. Only this file uses the crate `backoff`, so that it is easy to replace; `deny.toml` says why.

use std::time::Duration;

use backoff::{ExponentialBackoff, ExponentialBackoffBuilder, backoff::Backoff as _};

/// An endless series of growing, random pauses. Each is around twice the last one, plus or minus half.
#[derive(Debug)]
pub struct Backoff {
    policy: ExponentialBackoff,
    longest: Duration,
}

impl Backoff {
    /// Pauses that start around `first` and never exceed `longest`.
    #[must_use]
    pub fn new(first: Duration, longest: Duration) -> Self {
        let policy = ExponentialBackoffBuilder::new()
            .with_initial_interval(first)
            .with_max_interval(longest)
            .with_multiplier(2.0)
            .with_randomization_factor(0.5)
            .with_max_elapsed_time(None)
            .build();
        Self { policy, longest }
    }

    /// The next pause.
    pub fn next_pause(&mut self) -> Duration {
        self.policy.next_backoff().unwrap_or(self.longest).min(self.longest)
    }

    /// Starts over after a success.
    pub fn reset(&mut self) {
        self.policy.reset();
    }
}

/// The pause before the next attempt of a job: exponential with full jitter, that is, uniform between zero and
/// `base * 2^(attempt - 1)`, at most `longest`.
#[must_use]
pub fn retry_delay(base: Duration, attempt: u64, longest: Duration) -> Duration {
    let doublings = u32::try_from(attempt.saturating_sub(1)).unwrap_or(u32::MAX).min(20);
    let ceiling = base.saturating_mul(1 << doublings).min(longest);
    // An interval of half the ceiling, plus or minus all of it, is uniform between zero and the ceiling.
    ExponentialBackoffBuilder::new()
        .with_initial_interval(ceiling / 2)
        .with_max_interval(ceiling)
        .with_randomization_factor(1.0)
        .with_max_elapsed_time(None)
        .build()
        .next_backoff()
        .unwrap_or(ceiling)
        .min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_longest_and_never_end() {
        let longest = Duration::from_secs(2);
        let mut backoff = Backoff::new(Duration::from_millis(50), longest);
        let pauses: Vec<_> = (0..100).map(|_| backoff.next_pause()).collect();
        assert!(pauses[0] <= Duration::from_millis(75));
        assert!(pauses.iter().all(|pause| *pause <= longest));
        assert!(pauses[50..].iter().all(|pause| *pause >= longest / 2));
        backoff.reset();
        assert!(backoff.next_pause() <= Duration::from_millis(75));
    }

    #[test]
    fn a_retry_is_due_somewhere_below_the_doubled_base() {
        let (base, longest) = (Duration::from_millis(500), Duration::from_secs(10));
        for attempt in 1_u32..=8 {
            let ceiling = (base * (1 << (attempt - 1))).min(longest);
            let delays: Vec<_> = (0..200).map(|_| retry_delay(base, u64::from(attempt), longest)).collect();
            assert!(delays.iter().all(|delay| *delay <= ceiling), "attempt {attempt}");
            assert!(delays.iter().any(|delay| *delay > ceiling / 2), "attempt {attempt}");
            assert!(delays.iter().any(|delay| *delay < ceiling / 2), "attempt {attempt}");
        }
    }
}
