//! Workers that are killed, frozen, stopped or cut off from Redis; long jobs, cancelled jobs, and jobs of low priority.

mod cancelling;
mod crashes;
mod hung;
mod janitor;
mod leases;
mod panics;
mod poison;
mod priorities;
mod redis_outage;
mod shutdown;
mod tasks;
