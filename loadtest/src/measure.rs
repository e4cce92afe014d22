//! Everything that a run counts and measures.

pub(crate) mod busy;
pub(crate) mod latency;
pub(crate) mod recorder;
pub(crate) mod summary;
pub(crate) mod timeline;
pub(crate) mod totals;
