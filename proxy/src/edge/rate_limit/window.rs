//! The requests of one client in the last minute. At most the limit can be spent in any 60 seconds. A quota that refills steadily
//! would allow nearly twice as much in the first minute of a burst.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// The length of the window.
pub(super) const SECONDS: u64 = 60;
const LENGTH: Moment = Moment(SECONDS * 1_000_000_000);
/// Requests within this time are counted together, and expire together.
const STEP: u64 = 2_000_000_000;

/// A moment, in nanoseconds since the process began to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(u64);

impl Moment {
    pub(super) fn since(start: Instant) -> Self {
        Self(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// A later moment.
    #[cfg(test)]
    pub(super) fn after_seconds(self, seconds: u64) -> Self {
        Self(self.0 + seconds * 1_000_000_000)
    }

    fn step(self) -> u64 {
        self.0 / STEP
    }

    /// The time until requests of that moment expire.
    fn until_back(self, now: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_add(LENGTH.0).saturating_sub(now.0))
    }
}

/// The requests of each step; at most 31 steps.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// The requests of a step, and the moment of the last one.
    steps: VecDeque<(Moment, u32)>,
    spent: u64,
}

impl Window {
    /// Spends the cost, if that does not exceed `limit`. Otherwise returns the time until `wanted` is left.
    pub(super) fn spend(&mut self, now: Moment, cost: u32, limit: u32, wanted: u32) -> Result<(), Duration> {
        self.forget(now);
        if self.spent + u64::from(cost) <= u64::from(limit) {
            self.add(now, cost);
            return Ok(());
        }
        Err(self.time_until_left(now, wanted, limit))
    }

    /// Adds a cost that became known later. The window may then exceed the limit.
    pub(super) fn add(&mut self, now: Moment, cost: u32) {
        self.forget(now);
        self.spent += u64::from(cost);
        match self.steps.back_mut() {
            // An earlier moment is another thread's.
            Some((last, spent)) if last.step() >= now.step() => {
                *last = now.max(*last);
                *spent = spent.saturating_add(cost);
            }
            _ => self.steps.push_back((now, cost)),
        }
    }

    /// What is left of the limit.
    pub(super) fn left(&self, limit: u32) -> u32 {
        u32::try_from(u64::from(limit).saturating_sub(self.spent)).unwrap_or(0)
    }

    /// The time until nothing is spent.
    pub(super) fn time_until_whole(&self, now: Moment) -> Duration {
        self.steps.back().map_or(Duration::ZERO, |(last, _)| last.until_back(now))
    }

    /// Whether nothing is spent.
    pub(super) fn is_whole(&mut self, now: Moment) -> bool {
        self.forget(now);
        self.steps.is_empty()
    }

    fn time_until_left(&self, now: Moment, wanted: u32, limit: u32) -> Duration {
        let most = u64::from(limit.saturating_sub(wanted));
        let mut spent = self.spent;
        let enough = self.steps.iter().find(|(_, of_step)| {
            spent = spent.saturating_sub(u64::from(*of_step));
            spent <= most
        });
        enough.map_or(Duration::from_secs(SECONDS), |(last, _)| last.until_back(now))
    }

    /// Removes expired requests.
    pub(super) fn forget(&mut self, now: Moment) {
        while let Some((last, spent)) = self.steps.front()
            && last.until_back(now).is_zero()
        {
            self.spent = self.spent.saturating_sub(u64::from(*spent));
            self.steps.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> Moment {
        Moment((seconds * 1e9) as u64)
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
            // And not much less: a client that keeps to the limit is not rejected.
            let fair = (400.0 / pause).min(100.0 * 400.0 / 63.0);
            assert!(let_in.len() as f64 >= fair - 1.0, "{} every {pause} s", let_in.len());
            assert!(window.steps.len() <= 31, "{}", window.steps.len());
        }
    }

    #[test]
    fn a_rejected_client_that_waits_as_long_as_asked_is_accepted() {
        let mut window = Window::default();
        for moment in [0.0, 5.0, 5.5, 20.0] {
            window.spend(at(moment), 2, 8, 2).unwrap();
        }
        for cost in 1..=8 {
            let mut window = Window { steps: window.steps.clone(), ..window };
            let wait = window.spend(at(30.0), cost, 8, cost).unwrap_err();
            let early = window.spend(at(30.0 + wait.as_secs_f64() - 0.01), cost, 8, cost);
            assert!(early.is_err(), "{cost}");
            assert_eq!(window.spend(at(30.001 + wait.as_secs_f64()), cost, 8, cost), Ok(()), "{cost}");
        }
    }

    #[test]
    fn what_is_known_afterwards_is_owed() {
        let mut window = Window::default();
        window.spend(at(0.0), 1, 10, 1).unwrap();
        window.add(at(10.0), 10);
        assert_eq!(window.left(10), 0);
        // The first requests expire first, but that is not enough.
        let wait = window.spend(at(10.0), 1, 10, 1).unwrap_err();
        assert!((59.9..=60.0).contains(&wait.as_secs_f64()), "{wait:?}");
        assert!(!window.is_whole(at(69.9)) && window.is_whole(at(70.1)));
        assert_eq!(window.left(10), 10);
    }
}
