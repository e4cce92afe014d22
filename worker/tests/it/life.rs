//! Workers that are killed, frozen, told to stop or cut off from Redis, and long, cancelled and unimportant jobs.

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
