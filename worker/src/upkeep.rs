//! Runs beside the jobs: the heartbeat, the janitor, and whether the process lives and can run jobs.

pub mod heartbeat;
pub mod janitor;
pub mod lease_keeper;
pub mod liveness;
pub mod monitor;
pub mod readiness;
pub mod removed;
