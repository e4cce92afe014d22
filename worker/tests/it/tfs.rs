//! The model in a server with TensorFlow Serving's gRPC API.

mod answers;
mod bad_answers;
mod blame;
mod crashes;
mod description;
mod large_results;
mod limits;
mod outage;
mod retries;
mod secured;
mod start_order;
