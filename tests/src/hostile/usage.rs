//! Processor time and memory of processes, from `/proc` (proc(5)).

use std::fs;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, interval};

/// How often the processor time is read.
pub(super) const INTERVAL: Duration = Duration::from_millis(100);
/// `/proc` counts processor time in hundredths of a second (`USER_HZ`, the same on every Linux).
const TICK: Duration = Duration::from_millis(10);

/// A process, and the most threads of it that work.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watched {
    pub(super) pid: u32,
    pub(super) threads: usize,
}

/// Processor time of one process, interval by interval, ms.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Profile {
    pub(super) threads: usize,
    pub(super) ms: Vec<f64>,
}

impl Profile {
    pub(super) fn total(&self) -> Duration {
        Duration::from_secs_f64(self.ms.iter().sum::<f64>().max(0.0) / 1000.0)
    }

    /// Average ms in an interval.
    pub(super) fn rate(&self) -> f64 {
        self.ms.iter().sum::<f64>() / self.ms.len().max(1) as f64
    }

    /// The usage above this rate. If an interval is below the rate, the difference is subtracted from the next ones, which
    /// keeps the sum right.
    pub(super) fn beyond(&self, rate: f64) -> Self {
        let mut debt = 0.0;
        let beyond = self.ms.iter().map(|ms| {
            let more = ms - rate - debt;
            debt = (-more).max(0.0);
            more.max(0.0)
        });
        Self { threads: self.threads, ms: beyond.collect() }
    }
}

/// Watches processes for this long. A process that has ended uses nothing.
pub(super) async fn watch(processes: &[Watched], length: Duration) -> Vec<Profile> {
    let mut profiles: Vec<_> =
        processes.iter().map(|process| Profile { threads: process.threads, ms: Vec::new() }).collect();
    let mut last: Vec<_> = processes.iter().map(|process| processor_time(process.pid)).collect();
    let end = Instant::now() + length;
    let mut ticks = interval(INTERVAL);
    ticks.tick().await;
    while Instant::now() < end {
        ticks.tick().await;
        for ((process, last), profile) in processes.iter().zip(&mut last).zip(&mut profiles) {
            let now = processor_time(process.pid);
            let used = now.zip(*last).map(|(now, last)| now.saturating_sub(last));
            profile.ms.push(used.unwrap_or_default().as_secs_f64() * 1000.0);
            *last = now.or(*last);
        }
    }
    profiles
}

/// Processor time that a process has used so far.
pub(super) fn processor_time(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold spaces. Behind it, utime and stime are the 12th and 13th words.
    let mut words = stat.rsplit(") ").next()?.split(' ').skip(11);
    let mut ticks = || words.next()?.parse::<u32>().ok();
    Some(TICK * (ticks()? + ticks()?))
}

/// The most memory that a process has held so far, bytes.
pub(super) fn peak_memory(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beyond_a_rate_adds_up() {
        let profile = Profile { threads: 2, ms: vec![0.0, 10.0, 50.0, 0.0, 30.0] };
        let beyond = profile.beyond(10.0);
        assert_eq!(beyond.ms, [0.0, 0.0, 30.0, 0.0, 10.0]);
        assert_eq!(beyond.total(), Duration::from_millis(40));
        assert!((profile.rate() - 18.0).abs() < 1e-9);
    }

    #[test]
    fn this_process_uses_memory_and_time() {
        let pid = std::process::id();
        assert!(peak_memory(pid).unwrap() > 1 << 20);
        let start = processor_time(pid).unwrap();
        while processor_time(pid).unwrap() < start + TICK {}
        assert_eq!(processor_time(0), None);
    }
}
