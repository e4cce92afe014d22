//! Replies of Redis to commands that are no scripts.

use redis::Value;

use super::{log, reads};
use crate::{job::JobId, queue::error::StoreError};

/// Reads the reply as each kind of read would.
pub(crate) fn read_all(reply: impl Fn() -> Value) -> [Result<(), StoreError>; 3] {
    // These take what they know and leave the rest.
    let _ = reads::newest_pending_entry(reply());
    let _ = (reads::pending_entries(reply()), reads::job_ids(reply()));
    [
        reads::job_from(JobId::new(0), reply()).map(drop),
        reads::pending_from(reply()).map(drop),
        log::places_from(0, reply()).map(drop),
    ]
}
