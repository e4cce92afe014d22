//! The APIs that the proxy serves.

pub(crate) mod rest;
