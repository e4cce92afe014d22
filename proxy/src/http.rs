//! Bytes: connections, the limits on them, bodies and headers as text and as JSON. Knows no route and no job.

pub(crate) mod accept;
pub(crate) mod answer;
pub(crate) mod bodies;
pub(crate) mod budget;
pub(crate) mod certificate;
pub(crate) mod connections;
pub(crate) mod conversions;
pub(crate) mod headers;
pub(crate) mod host;
pub(crate) mod json;
pub(crate) mod kept;
pub(crate) mod open_files;
pub(crate) mod peer;
pub(crate) mod prefer;
pub(crate) mod protocol;
pub(crate) mod security_headers;
