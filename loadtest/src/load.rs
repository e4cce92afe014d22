//! The load: when to send which request, and sending it on time whatever the server does.

pub(crate) mod arrivals;
pub(crate) mod driver;
pub(crate) mod pacer;
pub(crate) mod profile;
pub(crate) mod settings;
pub(crate) mod traffic;
