//! How often a connection may replace another one, without its client getting more slots. A client that opens connections again
//! as soon as they are closed would otherwise keep the service busy with opening and closing them.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Time for each replacement. The clients share it.
const EACH: Duration = Duration::from_millis(1);
/// The time of so many may be used at once.
const AT_ONCE: u32 = 32;

/// The generic cell rate algorithm (ITU-T I.371, annex A).
#[derive(Default)]
pub(super) struct Replacements {
    /// When replacements that take their time one after the other would have ended.
    even: Mutex<Option<Instant>>,
}

impl Replacements {
    /// Counts one more if it is due at this moment. Otherwise fails with the moment when it is.
    pub(super) fn count(&self, now: Instant) -> Result<(), Instant> {
        let mut even = self.even.lock().unwrap_or_else(PoisonError::into_inner);
        let next = even.map_or(now, |even| even.max(now)) + EACH;
        if next > now + EACH * AT_ONCE {
            return Err(next - EACH * AT_ONCE);
        }
        *even = Some(next);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_are_due_at_once_and_then_one_after_the_other() {
        let (replacements, start) = (Replacements::default(), Instant::now());
        assert!((0..AT_ONCE).all(|_| replacements.count(start) == Ok(())));
        assert_eq!(replacements.count(start), Err(start + EACH));
        assert_eq!(replacements.count(start + EACH), Ok(()));
        assert_eq!(replacements.count(start + EACH), Err(start + EACH * 2));
        let later = start + EACH * AT_ONCE * 3;
        assert!((0..AT_ONCE).all(|_| replacements.count(later) == Ok(())));
        assert!(replacements.count(later).is_err());
    }
}
