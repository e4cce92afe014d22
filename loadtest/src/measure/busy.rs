//! The load on the generator itself. When it is at its own limit, its numbers say nothing about the server.

use std::time::{Duration, Instant};

/// Measures the calling thread. The same thread must create it and read it.
#[derive(Debug)]
pub(crate) struct Meter {
    since: Instant,
    wanted: Option<Duration>,
}

impl Meter {
    /// Starts measuring.
    pub(crate) fn start() -> Self {
        Self { since: Instant::now(), wanted: wanted() }
    }

    /// The share of the time since the start, 0 to 1, in which the thread ran or waited for a core; `None` if the system does
    /// not report it.
    pub(crate) fn share(&self) -> Option<f64> {
        let wanted = wanted()?.saturating_sub(self.wanted?).as_secs_f64();
        let share = wanted / self.since.elapsed().as_secs_f64().max(f64::MIN_POSITIVE);
        Some((share.min(1.0) * 1_000.0).round() / 1_000.0)
    }
}

/// Time on a core and time in the run queue (Linux: Documentation/scheduler/sched-stats.rst, "/proc/<pid>/schedstat").
fn wanted() -> Option<Duration> {
    parse(&std::fs::read_to_string("/proc/thread-self/schedstat").ok()?)
}

fn parse(schedstat: &str) -> Option<Duration> {
    let mut fields = schedstat.split_whitespace().map(str::parse);
    let (running, waiting): (u64, u64) = (fields.next()?.ok()?, fields.next()?.ok()?);
    Some(Duration::from_nanos(running + waiting))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_and_waiting_count_alike() {
        assert_eq!(parse("1500 500 3\n"), Some(Duration::from_nanos(2_000)));
        assert_eq!((parse(""), parse("x y z"), parse("1")), (None, None, None));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_spinning_thread_is_busy() {
        let meter = Meter::start();
        while meter.since.elapsed() < Duration::from_millis(50) {
            std::hint::spin_loop();
        }
        assert!(meter.share().is_none_or(|share| share > 0.5), "{:?}", meter.share());
    }
}
