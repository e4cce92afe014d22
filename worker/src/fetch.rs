//! Gets jobs and starts them: a consumer claims jobs, makes batches of them, and starts each when a batch slot is free.

pub mod arrivals;
pub mod fetcher;
mod granted;
pub mod lane;
pub mod positions;
pub mod quarantine;
pub mod reader;
pub mod settings;
pub mod ticks;
