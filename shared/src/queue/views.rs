//! Reads of the queue.

mod notifier;

pub use notifier::{Notifier, Watch};
