//! The proxy as a process, in front of a real Redis: what it answers, whatever is asked and whatever fails. Where a
//! worker is needed, the test takes and ends the jobs itself, through the job store.
//!
//! | module | shows |
//! | --- | --- |
//! | `rate_limit` | how many requests a client may make |
//! | `access`, `owners`, `key_file` | API keys: which requests are accepted, who sees which jobs, and the file of keys |
//! | `amplification` | no answer is out of proportion to its request |
//! | `bad_input`, `limits` | each kind of wrong request and its whole answer |
//! | `framing` | heads that two programs could read differently |
//! | `hostile` | attacks at scale: bounded time and memory, others are served |
//! | `submit`, `job`, `listing`, `retry` | the operations on jobs |
//! | `tensor_jobs`, `raw_bodies`, `tensor_results` | tensors in: JSON, binary form, raw bodies; tensors out: JSON and bytes |
//! | `opaque` | models that take and return any value |
//! | `tensor_mistakes` | each kind of wrong tensor over each way in |
//! | `idempotency`, `full_queue`, `quota` | one job for one key; refusing early |
//! | `tls`, `client_certificates`, `redis_tls`, `cors` | secured connections; whose pages may use the API |
//! | `health`, `metadata`, `metrics` | what operators read |
//! | `outage`, `data_loss`, `replication`, `shutdown` | what happens when parts fail or stop |
//! | `api_page` | docs/api.md, command by command |
//! | `doctor` | `tepal-proxy doctor` |
//! | `models` | several models: submissions, listings, descriptions, health, keys |
//! | `unknown_models` | models that do not exist, are removed, or change while jobs wait |
//! | `model_files` | MODELS_DIR while the proxy runs |
//! | `model_keys` | keys that are limited to models: which jobs they see |
//! | `other_model` | nothing knows the reference model |
//! | `v2`, `grpc` | the Open Inference Protocol over HTTP and over gRPC |
//! | `tf_serving` | TensorFlow Serving's REST API |
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failing step fails the test")]

mod access;
mod amplification;
mod api_page;
mod bad_input;
mod client_certificates;
mod cors;
mod cursors;
mod data_loss;
mod doctor;
mod expect;
mod framing;
mod full_queue;
mod gateway;
mod grpc;
mod health;
mod hostile;
mod idempotency;
mod idle;
mod job;
mod key_file;
mod keys;
mod limits;
mod listing;
mod metadata;
mod metrics;
mod model_files;
mod model_keys;
mod models;
mod opaque;
mod other_model;
mod outage;
mod owners;
mod protocol;
mod quota;
mod rate_limit;
mod raw_bodies;
mod redis_tls;
mod replication;
mod retry;
mod rights;
mod scale_to_zero;
mod shutdown;
mod store;
mod submit;
mod tasks;
mod tensor_jobs;
mod tensor_mistakes;
mod tensor_results;
mod tf_serving;
mod tls;
mod topology;
mod unknown_models;
mod v2;
mod versions;
