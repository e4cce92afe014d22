//! What a worker may do with a queue.

mod blocking_reader;
mod claim;
mod handle;
pub(super) mod heartbeat;
pub(super) mod outcome;
mod settle;
mod upkeep;

pub use blocking_reader::{BlockingReader, ReadSettings};
pub use claim::TakeRequest;
pub use handle::Work;
pub use outcome::{EndedJob, Fence, Granted, Settled};
pub use settle::Settlement;
pub use upkeep::{Recounted, Swept};
