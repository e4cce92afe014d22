//! The schedule of the requests. It depends on rate, length and seed, never on the server's answers. This makes the load
//! open-loop.

use std::time::Duration;

use clap::ValueEnum;
use fastrand::Rng;
use serde::Serialize;

/// The distribution of the gaps between two arrivals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Spacing {
    /// Always the same gap.
    Uniform,
    /// Exponentially distributed gaps with bursts, as independent users produce them.
    Poisson,
}

/// The times of the requests of one phase, as increasing offsets from its start.
#[derive(Debug)]
pub(crate) struct Arrivals {
    spacing: Spacing,
    per_second: f64,
    length_seconds: f64,
    count: u64,
    last_seconds: f64,
    rng: Rng,
}

impl Arrivals {
    /// A schedule of `per_second` arrivals for `length`. At a rate of 0 it is empty.
    pub(crate) fn new(spacing: Spacing, per_second: f64, length: Duration, rng: Rng) -> Self {
        Self { spacing, per_second, length_seconds: length.as_secs_f64(), count: 0, last_seconds: 0.0, rng }
    }

    /// A uniform schedule multiplies instead of adding, so that rounding errors do not add up.
    fn next_seconds(&mut self) -> f64 {
        let at = match self.spacing {
            Spacing::Uniform => self.count as f64 / self.per_second,
            Spacing::Poisson => self.last_seconds - (1.0 - self.rng.f64()).ln() / self.per_second,
        };
        self.count += 1;
        self.last_seconds = at;
        at
    }
}

impl Iterator for Arrivals {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        if self.per_second <= 0.0 {
            return None;
        }
        let at = self.next_seconds();
        (at < self.length_seconds).then(|| Duration::from_secs_f64(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offsets(spacing: Spacing, per_second: f64, seconds: u64, seed: u64) -> Vec<Duration> {
        Arrivals::new(spacing, per_second, Duration::from_secs(seconds), Rng::with_seed(seed)).collect()
    }

    #[test]
    fn uniform_arrivals_are_evenly_spaced_and_exactly_as_many_as_asked() {
        let offsets = offsets(Spacing::Uniform, 200.0, 3, 1);
        assert_eq!(offsets.len(), 600);
        assert_eq!(offsets[0], Duration::ZERO);
        assert_eq!(offsets[1], Duration::from_millis(5));
        assert_eq!(offsets[599], Duration::from_millis(2_995));
    }

    #[test]
    fn a_long_uniform_schedule_does_not_drift() {
        let last =
            Arrivals::new(Spacing::Uniform, 3.0, Duration::from_secs(86_400), Rng::with_seed(1)).last();
        let expected = Duration::from_secs_f64((86_400.0 * 3.0 - 1.0) / 3.0);
        assert_eq!(last, Some(expected));
    }

    #[test]
    fn poisson_arrivals_have_the_mean_and_the_spread_of_an_exponential() {
        let offsets = offsets(Spacing::Poisson, 1_000.0, 20, 42);
        let gaps: Vec<f64> = offsets.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((offsets.len() as f64 - 20_000.0).abs() < 600.0, "{}", offsets.len());
        assert!((mean * 1_000.0 - 1.0).abs() < 0.03, "{mean}");
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.05, "{variance}");
    }

    #[test]
    fn poisson_arrivals_repeat_with_their_seed() {
        assert_eq!(offsets(Spacing::Poisson, 50.0, 2, 9), offsets(Spacing::Poisson, 50.0, 2, 9));
        assert_ne!(offsets(Spacing::Poisson, 50.0, 2, 9), offsets(Spacing::Poisson, 50.0, 2, 10));
    }

    #[test]
    fn no_rate_means_no_arrivals() {
        assert!(offsets(Spacing::Uniform, 0.0, 5, 1).is_empty());
    }
}
