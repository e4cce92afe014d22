//! The operating system's limit of open files. A process at this limit can neither accept connections nor connect to Redis, so
//! the limit must be higher than the number of client connections.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

/// Files other than client connections: connections to Redis, the listening socket, files that are read at times, and accepted
/// connections that wait for a slot.
const OTHERS: u64 = 64;

/// Raises the soft limit if so many client connections need it. Returns how many there may be: fewer, if the hard limit is too
/// low.
pub(crate) fn make_room(connections: usize) -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let needed = needed(connections);
    let Some(current) = current.filter(|current| *current < needed) else { return connections };
    let raised = maximum.map_or(needed, |maximum| maximum.min(needed));
    let limit = match setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum }) {
        Ok(()) => raised,
        Err(_) => current,
    };
    let room = room(limit).min(connections);
    if room < connections {
        warn!(
            action = "connections_limited",
            connections = room,
            wanted = connections,
            open_files = limit,
            error = "the limit of open files is too low; raise it (ulimit -Hn, LimitNOFILE) or lower MAX_CONNECTIONS"
        );
    }
    room
}

fn needed(connections: usize) -> u64 {
    u64::try_from(connections).unwrap_or(u64::MAX).saturating_add(OTHERS)
}

fn room(limit: u64) -> usize {
    usize::try_from(limit.saturating_sub(OTHERS)).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_files_are_kept_for_other_uses() {
        assert_eq!((needed(10_000), room(needed(10_000))), (10_064, 10_000));
        assert_eq!((room(1_024), room(64), room(0)), (960, 1, 1));
    }
}
