//! Gets jobs and starts them: a consumer claims jobs, makes batches of them, and starts each when a batch slot is free.

pub mod consumer;
pub mod fetcher;
pub mod quarantine;
pub mod settings;
