//! Random choices of a run, all decided by its seed.

use std::ops::Range;
use std::time::Duration;

/// A generator for one part of a run.
#[derive(Clone, Debug)]
pub(super) struct Rng(fastrand::Rng);

impl Rng {
    /// A generator whose sequence is decided by `seed` and `stream`.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        let stream = fastrand::Rng::with_seed(stream).u64(..);
        Self(fastrand::Rng::with_seed(seed ^ stream))
    }

    /// A number of this range, which is not empty.
    pub(super) fn within(&mut self, range: Range<u64>) -> u64 {
        self.0.u64(range)
    }

    /// An index of a list of this length.
    pub(super) fn index(&mut self, len: usize) -> usize {
        self.0.usize(..len)
    }

    /// One of these.
    pub(super) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.index(from.len())]
    }

    /// One of these, each as often as its weight says.
    pub(super) fn weighted<T: Copy>(&mut self, from: &[(u64, T)]) -> T {
        let mut left = self.within(0..from.iter().map(|(weight, _)| weight).sum());
        for (weight, choice) in from {
            if left < *weight {
                return *choice;
            }
            left -= weight;
        }
        from[0].1
    }

    /// True this often.
    pub(super) fn chance(&mut self, share: f64) -> bool {
        self.0.f64() < share
    }

    /// A time of this range, in milliseconds.
    pub(super) fn millis(&mut self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.within(range))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_sequence() {
        let draw = |seed, stream| {
            let mut rng = Rng::new(seed, stream);
            [(); 2].map(|()| rng.within(0..u64::MAX))
        };
        assert_eq!(draw(7, 0), draw(7, 0));
        assert_ne!(draw(7, 0), draw(7, 1));
        assert_ne!(draw(7, 0), draw(8, 0));
    }

    #[test]
    fn weights_decide_how_often_each_choice_comes() {
        let mut rng = Rng::new(1, 0);
        let drawn: Vec<char> = (0..4_000).map(|_| rng.weighted(&[(3, 'a'), (1, 'b'), (0, 'c')])).collect();
        let count = |letter| drawn.iter().filter(|drawn| **drawn == letter).count();
        assert!((2_800..3_200).contains(&count('a')) && count('c') == 0, "{}", count('a'));
    }
}
