//! The queue in Redis. The only folder that uses the crate `redis`.
//!
//! | module | owns |
//! | --- | --- |
//! | [`intake`] | what a proxy may do: submit, cancel, requeue, fail what missed a deadline |
//! | [`work`] | what a worker may do: claim, renew, settle, clean up, report |
//! | [`views`] | reads, listings, and the notifier |
//! | [`heartbeat`] | what a worker reports, and which workers are alive |
//! | [`loss`] | notices jobs that Redis lost |
//! | [`keys`] | every Redis key |
//! | [`scripts`], `lua/` | the Lua scripts, their arguments and replies |
//! | [`link`] | the connection to Redis |
//! | [`error`] | failures between Tepal and Redis |
//! | [`doctor`] | checks of Redis |

pub(crate) mod arguments;
pub mod doctor;
pub mod error;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod handle;
pub mod heartbeat;
mod info;
pub mod intake;
pub mod keys;
pub mod link;
pub mod loss;
mod policy;
mod scripts;
mod slots;
pub mod views;
pub mod work;

pub use handle::Queue;
pub use policy::Policy;
pub use redis::RedisError;
