//! What a worker does with the queue.

mod reader;

pub use reader::Reader;
