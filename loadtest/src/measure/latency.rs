//! Latency distributions: histograms of fixed size, recorded in microseconds and reported in milliseconds.

use std::time::Duration;

use hdrhistogram::{CreationError, Histogram};
use serde::Serialize;

/// One day. Longer times count as one day.
const LARGEST_US: u64 = 24 * 3_600 * 1_000_000;

/// A distribution. Its memory does not grow with the number of values.
#[derive(Debug)]
pub(crate) struct Latency(Histogram<u32>);

/// The numbers of one distribution in a report, in milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct LatencySummary {
    pub(crate) count: u64,
    pub(crate) mean_ms: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p90_ms: f64,
    pub(crate) p95_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
    pub(crate) max_ms: f64,
}

/// The numbers of one second in a chart, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Percentiles {
    pub(crate) count: u64,
    pub(crate) p50_ms: f64,
    pub(crate) p95_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
}

impl Latency {
    /// Exact to 0.1 %, in about 110 KB.
    ///
    /// # Errors
    /// None in practice: the histogram accepts these constant bounds.
    pub(crate) fn precise() -> Result<Self, CreationError> {
        Histogram::new_with_bounds(1, LARGEST_US, 3).map(Self)
    }

    /// Exact to 1 %, in about 15 KB: for charts.
    ///
    /// # Errors
    /// Those of [`Latency::precise`].
    pub(crate) fn coarse() -> Result<Self, CreationError> {
        Histogram::new_with_bounds(1, LARGEST_US, 2).map(Self)
    }

    /// Adds one value.
    pub(crate) fn record(&mut self, value: Duration) {
        self.0.saturating_record(u64::try_from(value.as_micros()).unwrap_or(LARGEST_US).max(1));
    }

    /// The numbers of the distribution; `None` if it is empty.
    pub(crate) fn summary(&self) -> Option<LatencySummary> {
        (!self.0.is_empty()).then(|| LatencySummary {
            count: self.0.len(),
            mean_ms: to_ms(self.0.mean()),
            p50_ms: self.quantile_ms(0.5),
            p90_ms: self.quantile_ms(0.9),
            p95_ms: self.quantile_ms(0.95),
            p99_ms: self.quantile_ms(0.99),
            p999_ms: self.quantile_ms(0.999),
            max_ms: to_ms(self.0.max() as f64),
        })
    }

    /// The numbers recorded since the last call; `None` if there were none.
    pub(crate) fn take_percentiles(&mut self) -> Option<Percentiles> {
        let percentiles = (!self.0.is_empty()).then(|| Percentiles {
            count: self.0.len(),
            p50_ms: self.quantile_ms(0.5),
            p95_ms: self.quantile_ms(0.95),
            p99_ms: self.quantile_ms(0.99),
            max_ms: to_ms(self.0.max() as f64),
        });
        self.0.reset();
        percentiles
    }

    fn quantile_ms(&self, quantile: f64) -> f64 {
        to_ms(self.0.value_at_quantile(quantile) as f64)
    }
}

fn to_ms(microseconds: f64) -> f64 {
    microseconds.round() / 1_000.0
}

impl Percentiles {
    /// The larger numbers of two neighbours. Percentiles cannot be averaged, so a chart of a long run shows the worst second.
    pub(crate) fn worst(left: Option<Self>, right: Option<Self>) -> Option<Self> {
        let (Some(a), Some(b)) = (left, right) else { return left.or(right) };
        Some(Self {
            count: a.count + b.count,
            p50_ms: a.p50_ms.max(b.p50_ms),
            p95_ms: a.p95_ms.max(b.p95_ms),
            p99_ms: a.p99_ms.max(b.p99_ms),
            max_ms: a.max_ms.max(b.max_ms),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_a_known_distribution() {
        let mut latency = Latency::precise().unwrap();
        (1..=1_000).for_each(|ms| latency.record(Duration::from_millis(ms)));
        let summary = latency.summary().unwrap();
        for (value, expected) in [
            (summary.p50_ms, 500.0),
            (summary.p99_ms, 990.0),
            (summary.p999_ms, 999.0),
            (summary.mean_ms, 500.5),
        ] {
            assert!((value - expected).abs() <= expected * 0.001, "{value} is not {expected}");
        }
        assert_eq!(summary.count, 1_000);
    }

    #[test]
    fn an_empty_distribution_has_no_numbers() {
        assert_eq!(Latency::precise().unwrap().summary(), None);
        assert_eq!(Latency::coarse().unwrap().take_percentiles(), None);
    }

    #[test]
    fn each_window_starts_empty() {
        let mut latency = Latency::coarse().unwrap();
        latency.record(Duration::from_secs(3));
        assert_eq!(latency.take_percentiles().unwrap().count, 1);
        latency.record(Duration::from_millis(2));
        let second = latency.take_percentiles().unwrap();
        assert!(second.count == 1 && second.max_ms < 3.0, "{second:?}");
    }

    #[test]
    fn values_beyond_a_day_are_kept_as_a_day() {
        let mut latency = Latency::precise().unwrap();
        latency.record(Duration::from_secs(10 * 86_400));
        assert!(latency.summary().unwrap().max_ms >= 86_400_000.0);
    }
}
