//! The control program. It uses as much processor time as an attack, at the same times and in as many threads, and nothing
//! more. A client that waits longer beside an attack than beside this program waits for more than the processor.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use super::usage::{INTERVAL, Profile};

/// Number of equal parts in which the time of an interval is used.
const PARTS: u32 = 10;
/// How long after the end the rest may be used that could not be used in time.
const OVERTIME: Duration = Duration::from_secs(5);
/// Iterations between two reads of the clock.
const SPIN: Duration = Duration::from_micros(100);

/// Uses the time of the profiles. Blocks until all of it is used, or until some time after the last interval.
pub(super) fn burn(profiles: &[Profile]) {
    let start = Instant::now();
    thread::scope(|scope| {
        for profile in profiles {
            for _ in 0..profile.threads {
                scope.spawn(move || burn_share(profile, start));
            }
        }
    });
}

/// One thread's share of a profile.
fn burn_share(profile: &Profile, start: Instant) {
    let (part, mut due) = (INTERVAL / PARTS, Duration::ZERO);
    let (mut number, before) = (0, used());
    for ms in &profile.ms {
        let share = Duration::from_secs_f64(ms / 1000.0 / profile.threads as f64 / f64::from(PARTS));
        for _ in 0..PARTS {
            due += share;
            number += 1;
            let end = start + part * number;
            while used() < before + due && Instant::now() < end {
                spin();
            }
            thread::sleep(end.saturating_duration_since(Instant::now()));
        }
    }
    let end = Instant::now() + OVERTIME;
    while used() < before + due && Instant::now() < end {
        spin();
    }
}

fn spin() {
    let start = Instant::now();
    while start.elapsed() < SPIN {
        std::hint::spin_loop();
    }
}

/// Processor time of this thread.
fn used() -> Duration {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").expect("the kernel counts processor time");
    let nanos = stat.split(' ').next().and_then(|word| word.parse().ok());
    Duration::from_nanos(nanos.expect("proc(5): it begins with the time on the processor, ns"))
}

#[cfg(test)]
mod tests {
    use super::super::usage::processor_time;
    use super::*;

    #[test]
    fn as_much_is_used_as_the_profile_says() {
        let time = || processor_time(std::process::id()).unwrap();
        let before = time();
        burn(&[Profile { threads: 2, ms: vec![40.0, 0.0, 60.0] }, Profile { threads: 1, ms: vec![20.0] }]);
        assert!(time() - before >= Duration::from_millis(100), "{:?}", time() - before);
    }
}
