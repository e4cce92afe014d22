//! Reads of a queue, and the notifier.

#[cfg(any(fuzzing, test))]
pub(super) mod fuzzing;
mod handle;
mod jobs;
mod load;
mod log;
mod notifier;
mod server;

pub use handle::Views;
pub use load::QueueState;
pub use log::{LogEntry, LogPage, LogPlace};
pub use notifier::{Notifier, Watch};
pub use server::{AofState, ServerState};
