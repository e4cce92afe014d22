//! Runs beside the jobs: the heartbeat, the janitor, and whether the loops of the process still move.

pub mod heartbeat;
pub mod janitor;
pub mod lease_keeper;
pub mod liveness;
pub mod monitor;
pub mod removed;
