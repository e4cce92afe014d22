//! The queue against real Redis servers: every transition, every fault, and proof that the tests would notice.
//!
//! | module | shows |
//! | --- | --- |
//! | `transitions` | one table: every script in every state, its outcome and the state after |
//! | `submit`, `together`, `delivery`, `leases`, `put_back`, `deadlines`, `ends`, `inputs`, `owners`, `quota`, `recount`, `repairs`, `upkeep` | one behaviour a test |
//! | `models` | several models in one queue |
//! | `endurance` | a long backlog, many pending entries, memory over many cycles |
//! | `loss` | jobs that Redis lost are counted, and no others |
//! | `reads` | large reads leave room for small ones |
//! | `reconnect`, `lost_replies` | Redis goes away and comes back; its reply is lost |
//! | `model_test` | random sequences against an in-memory model (`model`) |
//! | `mutants` | each guard in the Lua scripts is needed: without it a named test fails (`altered`) |
//!
//! A behaviour is an `async fn(&Queue)`; `as_tests!` makes a test of it, and `mutants` runs it on altered scripts.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a failing step fails the test")]

/// Makes a test, in a queue and servers of its own, of each behaviour. Those after `one_server:` break or replace their server,
/// so they have one in every mode. They are in a module of this name, which a run with several servers leaves out.
macro_rules! as_tests {
    ($($name:ident),* $(,)? $(; one_server: $($alone:ident),* $(,)?)?) => {
        mod tests {
            $(#[tokio::test]
            async fn $name() {
                super::$name(&crate::queue::Queue::start().await).await;
            })*

            $(mod one_server {
                $(#[tokio::test]
                async fn $alone() {
                    super::super::$alone(&crate::queue::Queue::alone().await).await;
                })*
            })?
        }
    };
}

mod altered;
mod clock;
mod deadlines;
mod delivery;
mod ends;
mod endurance;
mod format;
mod inputs;
mod leases;
mod loss;
mod lost_replies;
mod model;
mod model_test;
mod models;
mod mutants;
mod owners;
mod put_back;
mod queue;
mod quota;
mod reads;
mod reconnect;
mod recount;
mod repairs;
mod snapshot;
mod store;
mod submit;
mod together;
mod topologies;
mod transitions;
mod upkeep;
