//! The load: the schedule of requests. Each is sent on time, however slow the server is.

pub(crate) mod arrivals;
pub(crate) mod driver;
pub(crate) mod pacer;
pub(crate) mod profile;
pub(crate) mod settings;
pub(crate) mod traffic;
