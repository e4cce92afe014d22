//! Arguments of the scripts.

use std::time::Duration;

use crate::job::Priority;

/// A length of time. Capped, so that Lua can add it to a time: Lua counts exactly up to 2^53.
pub(crate) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX).min(1 << 52)
}

/// A lifetime. Redis would read 0 as none.
pub(crate) fn seconds(span: Duration) -> u64 {
    span.as_secs().max(1)
}

pub(crate) fn stream_number(priority: Priority) -> usize {
    match priority {
        Priority::High => 1,
        Priority::Normal => 2,
        Priority::Low => 3,
    }
}
