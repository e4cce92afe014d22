//! What both services share. A folder uses only folders above it.
//!
//! | folder | owns |
//! | --- | --- |
//! | [`job`] | a job: id, status, owner; no I/O |
//! | [`json`] | values of requests, and numbers that no type holds |
//! | [`tensor`] | typed rows |
//! | [`content`] | JSON and bytes that are passed on unread |
//! | [`model`] | the description of a model: its inputs and outputs |
//! | [`process`] | what every process needs: settings, logs, traces, TLS, retries, shutdown, background tasks |
//! | [`queue`] | the queue in Redis: keys, scripts, transitions, reads; the only folder that uses the crate `redis` |
//! | [`settings`] | the settings of both services |

pub mod content;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
pub mod job;
pub mod json;
pub mod model;
pub mod process;
pub mod queue;
pub mod settings;
pub mod tensor;
