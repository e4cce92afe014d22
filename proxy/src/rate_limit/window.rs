//! What one client has spent in the last minute. In any 60 seconds at most the limit is spent: a quota that refills while a
//! burst is spent would let nearly twice as much through in its first minute.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// The length of the window.
pub(super) const SECONDS: u64 = 60;
const TICKS_A_SECOND: u32 = 16;
/// Of what was spent in one tick, nothing comes back before the window has passed since the tick's end.
const LENGTH: u32 = SECONDS as u32 * TICKS_A_SECOND + 1;

/// A moment, in sixteenths of a second since the process began to count; it lasts for eight years.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tick(u32);

impl Tick {
    pub(super) fn since(start: Instant) -> Self {
        let ticks = start.elapsed().as_millis() * u128::from(TICKS_A_SECOND) / 1000;
        // Two windows later than the first moment, so that every moment has one before it.
        Self(u32::try_from(ticks).unwrap_or(u32::MAX - 2 * LENGTH) + 2 * LENGTH)
    }

    fn second(self) -> u32 {
        self.0 / TICKS_A_SECOND
    }

    /// The time until what was spent at that moment comes back.
    fn until_back(self, now: Self) -> Duration {
        let left = (self.0 + LENGTH).saturating_sub(now.0);
        Duration::from_secs_f64(f64::from(left) / f64::from(TICKS_A_SECOND))
    }

    fn is_over(self, now: Self) -> bool {
        self.0 + LENGTH <= now.0
    }
}

/// What was spent, second by second; at most 62 of them.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// What was spent in a second, and the last moment at which something was.
    seconds: VecDeque<(Tick, u32)>,
    spent: u64,
}

impl Window {
    /// Spends the cost if no more than `limit` is spent then, else says how long it takes until `wanted` is left.
    pub(super) fn spend(&mut self, now: Tick, cost: u32, limit: u32, wanted: u32) -> Result<(), Duration> {
        self.forget(now);
        if self.spent + u64::from(cost) <= u64::from(limit) {
            self.add(now, cost);
            return Ok(());
        }
        Err(self.time_until_left(now, wanted, limit))
    }

    /// Adds a cost that was not known before; the window may hold more than the limit then.
    pub(super) fn add(&mut self, now: Tick, cost: u32) {
        self.forget(now);
        self.spent += u64::from(cost);
        match self.seconds.back_mut() {
            // Moments do not go back: an earlier one is another thread's.
            Some((last, spent)) if last.second() >= now.second() => {
                *last = now.max(*last);
                *spent = spent.saturating_add(cost);
            }
            _ => self.seconds.push_back((now, cost)),
        }
    }

    /// What is left of the limit.
    pub(super) fn left(&self, limit: u32) -> u32 {
        u32::try_from(u64::from(limit).saturating_sub(self.spent)).unwrap_or(0)
    }

    /// The time until nothing is spent.
    pub(super) fn time_until_whole(&self, now: Tick) -> Duration {
        self.seconds.back().map_or(Duration::ZERO, |(last, _)| last.until_back(now))
    }

    /// Whether nothing is spent.
    pub(super) fn is_whole(&mut self, now: Tick) -> bool {
        self.forget(now);
        self.seconds.is_empty()
    }

    fn time_until_left(&self, now: Tick, wanted: u32, limit: u32) -> Duration {
        let most = u64::from(limit.saturating_sub(wanted));
        let mut spent = self.spent;
        let enough = self.seconds.iter().find(|(_, of_second)| {
            spent = spent.saturating_sub(u64::from(*of_second));
            spent <= most
        });
        enough.map_or(Duration::from_secs(SECONDS), |(last, _)| last.until_back(now))
    }

    fn forget(&mut self, now: Tick) {
        while let Some((_, spent)) = self.seconds.pop_front_if(|(last, _)| last.is_over(now)) {
            self.spent = self.spent.saturating_sub(u64::from(spent));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> Tick {
        Tick((seconds * f64::from(TICKS_A_SECOND)) as u32 + 2 * LENGTH)
    }

    #[test]
    fn no_sixty_seconds_let_more_than_the_limit_through() {
        for pause in [0.07, 0.3, 0.61, 1.0, 7.3, 31.0] {
            let mut window = Window::default();
            let mut let_in: Vec<f64> = Vec::new();
            let mut second = 0.0;
            while second < 400.0 {
                if window.spend(at(second), 1, 100, 1).is_ok() {
                    let_in.push(second);
                }
                second += pause;
            }
            for (index, first) in let_in.iter().enumerate() {
                let within = let_in[index..].iter().filter(|moment| **moment - first < 60.0).count();
                assert!(within <= 100, "{within} from {first} on, every {pause} s");
            }
            // And little less: a client that keeps to the limit is not refused.
            let fair = (400.0 / pause).min(100.0 * 400.0 / 62.0);
            assert!(let_in.len() as f64 >= fair - 1.0, "{} every {pause} s", let_in.len());
            assert!(window.seconds.len() <= 62, "{}", window.seconds.len());
        }
    }

    #[test]
    fn a_refused_client_that_waits_as_told_is_let_in() {
        let mut window = Window::default();
        for moment in [0.0, 5.0, 5.5, 20.0] {
            window.spend(at(moment), 2, 8, 2).unwrap();
        }
        for cost in 1..=8 {
            let mut window = Window { seconds: window.seconds.clone(), ..window };
            let wait = window.spend(at(30.0), cost, 8, cost).unwrap_err();
            let early = window.spend(at(30.0 + wait.as_secs_f64() - 0.2), cost, 8, cost);
            assert!(early.is_err(), "{cost}");
            assert_eq!(window.spend(at(30.0 + wait.as_secs_f64()), cost, 8, cost), Ok(()), "{cost}");
        }
    }

    #[test]
    fn what_is_known_afterwards_is_owed() {
        let mut window = Window::default();
        window.spend(at(0.0), 1, 10, 1).unwrap();
        window.add(at(10.0), 10);
        assert_eq!(window.left(10), 0);
        // The first comes back first, but that is not enough.
        let wait = window.spend(at(10.0), 1, 10, 1).unwrap_err();
        assert!((59.9..60.2).contains(&wait.as_secs_f64()), "{wait:?}");
        assert!(!window.is_whole(at(70.0)) && window.is_whole(at(70.2)));
        assert_eq!(window.left(10), 10);
    }
}
