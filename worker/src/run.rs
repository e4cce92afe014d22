//! Runs jobs: one batch from its start to its settled outcomes, and the limits that apply to it. Claims no jobs.

pub mod batch;
pub mod batch_limit;
pub mod breaker;
pub mod leases;
pub mod limiter;
pub mod missing;
pub mod parts;
pub mod runner;
pub mod sample;
pub mod settings;
pub mod slots;
pub mod spans;
pub mod vitals;
