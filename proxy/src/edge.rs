//! What every request passes before its route: request id, access, rate limit, CORS. Knows no route.

pub(crate) mod access;
pub(crate) mod admission;
pub(crate) mod cors;
pub(crate) mod cost;
pub(crate) mod observe;
pub(crate) mod rate_limit;
pub(crate) mod request_id;
pub(crate) mod rules;
pub(crate) mod unreadable;
