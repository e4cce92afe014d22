//! The model in a server of the Open Inference Protocol.

mod answers;
mod blame;
mod description;
mod outage;
mod secured;
