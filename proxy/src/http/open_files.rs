//! The operating system's limit of open files. A process at this limit can neither accept connections nor connect to Redis, so
//! the limit must be higher than the number of client connections.

use std::io;

use rustix::{
    io::fcntl_dupfd_cloexec,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use tracing::{debug, warn};

/// Files other than client connections with a slot: connections to Redis, the listening socket, files that are read at times, and
/// the connections that may have lost their slots in any case.
const OTHERS: u64 = 64;
/// Connections that wait for a slot, and those that lost one, if the limit allows it.
const WAITING: usize = 4096;
const LEAVING: usize = 256;

/// The open files that client connections may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// Connections with a slot.
    pub(crate) connections: usize,
    /// Further connections that wait for a slot.
    pub(crate) waiting: usize,
    /// Further connections that lost their slots.
    pub(crate) leaving: usize,
}

impl Room {
    /// The part of a port that would use so many of all connections.
    pub(crate) fn part(self, most: usize, all: usize) -> Self {
        let of = |room: usize| (room as u128 * most as u128 / (all as u128).max(1)) as usize;
        let (waiting, leaving) = (of(self.waiting), of(self.leaving));
        Self { connections: of(self.connections).max(1), waiting, leaving }
    }
}

/// Raises the soft limit as far as so many client connections need it. There is less room if the hard limit is too low.
pub(crate) fn make_room(connections: usize) -> Room {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let needed = connections.saturating_add(WAITING + LEAVING);
    let needed = u64::try_from(needed).unwrap_or(u64::MAX).saturating_add(OTHERS);
    let Some(current) = current.filter(|current| *current < needed) else {
        grow_table(needed);
        return room(needed, connections);
    };
    let raised = maximum.map_or(needed, |maximum| maximum.min(needed));
    let limit = match setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum }) {
        Ok(()) => raised,
        Err(_) => current,
    };
    grow_table(limit);
    let room = room(limit, connections);
    if room.connections < connections {
        warn!(
            action = "connections_limited",
            connections = room.connections,
            wanted = connections,
            open_files = limit,
            error = "the limit of open files is too low; raise it (ulimit -Hn, LimitNOFILE) or lower MAX_CONNECTIONS"
        );
    }
    room
}

/// Grows the kernel's table of this process's open files to this size. Otherwise it doubles while connections are accepted, and
/// each time the accepting thread waits until all processors have let go of the old table (`expand_fdtable` of Linux): half a
/// second on a busy machine, in which no client is served.
fn grow_table(files: u64) {
    let last = i32::try_from(files).unwrap_or(i32::MAX).saturating_sub(1);
    // The file is closed at once.
    if let Err(error) = fcntl_dupfd_cloexec(io::stderr(), last) {
        debug!(action = "open_files_not_reserved", %error);
    }
}

/// Connections come before spare files.
fn room(limit: u64, wanted: usize) -> Room {
    let files = usize::try_from(limit.saturating_sub(OTHERS)).unwrap_or(usize::MAX).max(1);
    let connections = files.min(wanted);
    let spare = files - connections;
    let leaving = (spare / 2).min(LEAVING);
    Room { connections, waiting: (spare - leaving).min(WAITING), leaving }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_share_the_room() {
        let room = Room { connections: 1100, waiting: 110, leaving: 11 };
        assert_eq!(room.part(1000, 1100), Room { connections: 1000, waiting: 100, leaving: 10 });
        assert_eq!(room.part(100, 1100), Room { connections: 100, waiting: 10, leaving: 1 });
        assert_eq!(Room { connections: 1, ..room }.part(100, 1100).connections, 1);
        assert_eq!(room.part(1100, 1100), room);
    }

    #[test]
    fn some_files_are_kept_for_other_uses() {
        let room = |limit, wanted| {
            let Room { connections, waiting, leaving } = room(limit, wanted);
            (connections, waiting, leaving)
        };
        assert_eq!(room(100_000, 10_000), (10_000, 4096, 256));
        assert_eq!(room(11_064, 10_000), (10_000, 744, 256));
        assert_eq!(room(10_100, 10_000), (10_000, 18, 18));
        assert_eq!((room(1_024, 1_000), room(64, 1_000), room(0, 5)), ((960, 0, 0), (1, 0, 0), (1, 0, 0)));
    }
}
