//! Support for Tepal's integration tests: real Redis servers, real service processes, real faults, and a
//! checker that proves from the recorded history that no promise was broken.
//!
//! Of the services' crates this one depends only on the wire types, so that each of them can use it as a dev-dependency.
//! It must stay free of Tepal's own logic: a test that computed its expectations with the code under test
//! would prove nothing.
//!
//! - [`wait`]: wait for a condition, never for a time
//! - [`ports`]: free loopback ports
//! - [`network`]: a network whose servers can be cut off from each other
//! - [`redis`]: a Redis server of one's own
//! - [`process`]: `tepal-proxy` and `tepal-worker` as child processes
//! - [`certificates`]: certificates of one's own authority
//! - [`http`]: an HTTP client, and raw bytes
//! - [`http_server`]: an HTTP endpoint of one's own, with faults
//! - [`http_servers`]: HTTP servers of others through the whole product
//! - [`model_server`]: a model server of one's own, with faults
//! - [`onnxruntime`]: the ONNX Runtime library
//! - [`fault_proxy`]: a TCP proxy that cuts, delays and swallows
//! - [`history`]: the history checker, invariants I1 to I10
//! - [`chaos`]: fault runs over all of it
//! - [`failover`]: faults of a Sentinel group and of a cluster
//! - [`hostile`]: attacks on a proxy, beside honest clients
//! - [`real_models`]: real models through the whole product
//! - [`real_servers`]: the whole product in front of real servers of the Open Inference Protocol
//! - [`saved_models`]: SavedModels on a recorded or real TensorFlow
//! - [`seeds`]: the inputs of the fuzz targets, for tests without a fuzzer
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "test support: a broken harness must fail the test at once, with a clear text"
)]

pub mod certificates;
pub mod chaos;
pub mod failover;
pub mod fault_proxy;
pub mod history;
pub mod hostile;
pub mod http;
pub mod http_server;
pub mod http_servers;
pub mod model_server;
pub mod network;
pub mod onnxruntime;
pub mod ports;
pub mod process;
pub mod real_models;
pub mod real_servers;
pub mod redis;
pub mod saboteur;
pub mod saved_models;
pub mod seeds;
pub mod wait;
