//! What a proxy may do with a queue.

mod acknowledged;
mod depths;
pub(super) mod end;
mod gathered;
mod handle;
mod lookup;
pub(super) mod requeue;
mod secret;
mod submit;
pub(super) mod submitted;

pub use depths::Depths;
pub use end::{Cancelled, Expired};
pub use handle::Intake;
pub use requeue::{Origin, Requeued};
pub use secret::QueueSecret;
pub use submitted::Submitted;
