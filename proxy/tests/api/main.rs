//! What waits, streams and comes in many: over HTTP, with a real process and a real Redis. The tests play the worker through
//! the job store.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a failing step fails the test")]

mod caching;
mod contract;
mod event_stream;
mod events;
mod fan_out;
mod filters;
mod many;
mod site;
mod store;
mod waiting;
