//! When the streams of a partition are searched for entries that are due again.

use std::time::Duration;

use tokio::time::Instant;

/// So many partitions are searched at the same moment. All at once would keep Redis busy for milliseconds; each at its own moment would
/// wake an idle process a thousand times a second.
const AT_A_TIME: u32 = 16;
/// The number of such groups of partitions.
const GROUPS: u32 = 256 / AT_A_TIME;

/// The moments of the searches, one in each interval. All lanes and the reader share them: whoever takes first from a partition after
/// such a moment searches. So no search is later than one interval after the last.
#[derive(Clone, Copy, Debug)]
pub struct Ticks {
    start: Instant,
    interval: Duration,
}

impl Ticks {
    /// One tick in each interval, from now on.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        Self { start: Instant::now(), interval }
    }

    /// The time between two ticks.
    #[must_use]
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// The number of the partition's last tick.
    #[must_use]
    pub fn last(&self, partition: u8) -> u32 {
        let since = self.start.elapsed() + self.interval - self.offset(partition);
        (since.as_nanos() / self.interval.as_nanos().max(1)) as u32
    }

    /// When its next tick is.
    #[must_use]
    pub fn next(&self, partition: u8) -> Instant {
        self.start + self.offset(partition) + self.interval * self.last(partition)
    }

    fn offset(&self, partition: u8) -> Duration {
        self.interval * (u32::from(partition) / AT_A_TIME) / GROUPS
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, sleep_until};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_partition_has_one_tick_in_each_interval() {
        let interval = Duration::from_millis(160);
        let ticks = Ticks::new(interval);
        advance(Duration::from_millis(5)).await;
        for (partition, offset_ms) in [(0, 0_u32), (15, 0), (16, 10), (255, 150)] {
            let tick = ticks.last(partition);
            let next = ticks.next(partition);
            let offset_ns = (next - ticks.start).as_nanos() % interval.as_nanos();
            assert_eq!(offset_ns, u128::from(offset_ms) * 1_000_000, "{partition}");
            assert!(next > Instant::now() && next <= Instant::now() + interval);
            sleep_until(next).await;
            assert_eq!(ticks.last(partition), tick + 1);
            assert_eq!(ticks.next(partition), next + interval);
        }
    }
}
