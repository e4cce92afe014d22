//! The worker as a process, against a real Redis and real model servers: the outcomes of jobs under every kind of failure.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failing step fails the test")]

mod bad_models;
mod batching;
mod config;
mod doctor;
mod flowers;
mod http;
mod idle;
mod large_jobs;
mod life;
mod metrics;
mod model_command;
mod models;
mod monitor;
mod onnx;
mod onnxruntime;
mod open_inference;
mod partitions;
mod queue;
mod removed;
mod rights;
mod settings;
mod store;
mod tfs;
mod versions;
