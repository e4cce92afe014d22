//! HTTP: the client, the server's URL, and the API calls of a load test.

pub(crate) mod api;
pub(crate) mod client;
pub(crate) mod failure;
pub(crate) mod settings;
pub(crate) mod target;
