//! What every process needs. Knows neither jobs nor Redis, except that a span names its job.
//!
//! | module | owns |
//! | --- | --- |
//! | [`settings`] | flags and environment variables, and the list of everything that is wrong with them |
//! | [`telemetry`], [`trace`] | logs; spans over OTLP |
//! | [`tls`] | certificates and keys; why a handshake failed |
//! | [`retry`], [`supervisor`], [`shutdown`] | pauses between tries; background tasks that outlive a bug; stopping |
//! | [`priority`] | threads that must not delay others |
//! | [`doctor`] | the report of a doctor |
//! | [`service`] | the main function of a service |

pub mod doctor;
pub mod priority;
pub mod retry;
pub mod service;
pub mod settings;
pub mod shutdown;
pub mod supervisor;
pub mod telemetry;
pub mod tls;
pub mod trace;
