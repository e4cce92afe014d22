//! Replies of Redis to plain commands.

use redis::Value;

use crate::{
    job::JobId,
    queue::{
        error::StoreError,
        views::{jobs, load, log},
    },
};

/// Reads the reply as each kind of read would.
pub(crate) fn read_all(reply: impl Fn() -> Value) -> [Result<(), StoreError>; 3] {
    // These skip what they cannot read.
    let _ = load::newest_pending_entry(reply());
    let _ = (load::pending_entries(reply()), load::job_ids(reply()));
    [
        jobs::job_from(JobId::new(0), reply()).map(drop),
        load::pending_from(reply()).map(drop),
        log::places_from(0, reply()).map(drop),
    ]
}
