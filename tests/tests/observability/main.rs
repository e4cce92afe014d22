//! Everything on which an operator relies: the operations guide, metrics, dashboards, alerts and ACL, compared with the real
//! programs, a real Prometheus and a real Redis.
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a failing step fails the test")]

mod acl;
mod alerts;
mod chart;
mod dashboards;
mod empty_settings;
mod faults;
mod guide;
mod image;
mod live;
mod logs;
mod prometheus;
mod promql;
mod settings;
mod stack;

use std::path::{Path, PathBuf};

/// The top of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// A file of the repository.
fn file(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}
