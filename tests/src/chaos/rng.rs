//! A small seeded random number generator: the standard library has none, and a run must be repeatable.

use std::ops::Range;
use std::time::Duration;

/// SplitMix64 as published by Steele, Lea and Flood (2014).
#[derive(Clone, Debug)]
pub(super) struct Rng(u64);

impl Rng {
    /// A generator whose sequence is decided by `seed` and `stream`.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        let mut mixer = Self(seed ^ stream.wrapping_mul(0xA076_1D64_78BD_642F));
        Self(mixer.next_u64())
    }

    fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number in `[0, 1)`.
    pub(super) fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A number of this range, which is not empty.
    pub(super) fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + (self.unit() * (range.end - range.start) as f64) as u64
    }

    /// An index of a list of this length.
    pub(super) fn index(&mut self, len: usize) -> usize {
        self.within(0..len as u64) as usize
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
        self.unit() < share
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
            [rng.next_u64(), rng.next_u64()]
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
