//! What a request does with jobs: accepts them, follows them, reads their results. Knows no route.

pub(crate) mod follow;
pub(crate) mod idempotency;
pub(crate) mod intake;
pub(crate) mod known_models;
pub(crate) mod models;
pub(crate) mod own_models;
mod placement;
pub(crate) mod quota;
pub(crate) mod refused;
pub(crate) mod results;
pub(crate) mod single_flight;
pub(crate) mod store;
pub(crate) mod submission;
