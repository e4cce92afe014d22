//! What the payers of the jobs keep.

use std::collections::BTreeMap;

use tepal_shared::job::{JobStatus, LARGE_BYTES};

use super::{Model, ModelJob};

/// Most bytes that a payer may keep in the test.
pub(crate) const MOST_BYTES: u64 = 40_000;

fn counted(bytes: usize) -> u64 {
    if bytes > LARGE_BYTES { bytes as u64 } else { 0 }
}

impl ModelJob {
    /// Size of its result, bytes. A job with an input of 100 bytes has a large result.
    pub(crate) fn result_bytes(&self) -> usize {
        if self.bytes == 100 { LARGE_BYTES + 100 } else { 100 }
    }

    fn charged(&self) -> u64 {
        match self.status {
            _ if self.is_uncharged => 0,
            JobStatus::Completed => counted(self.result_bytes()),
            _ => counted(self.bytes),
        }
    }
}

impl Model {
    /// The sum of each payer that keeps anything.
    pub(crate) fn sums(&self) -> BTreeMap<String, u64> {
        let mut sums = BTreeMap::new();
        for job in self.jobs.iter().filter(|job| job.charged() > 0) {
            *sums.entry(job.payer.to_owned()).or_default() += job.charged();
        }
        sums
    }

    /// Whether the payer may keep another input of this size.
    pub(super) fn has_room(&self, payer: &str, bytes: usize) -> bool {
        self.sums().get(payer).copied().unwrap_or(0) + counted(bytes) <= MOST_BYTES
    }

    /// The input or result of an ended job expires. Returns whether it was charged.
    pub(crate) fn make_due(&mut self, index: usize) -> bool {
        let job = &mut self.jobs[index];
        job.is_due = job.status.is_terminal() && job.charged() > 0;
        job.is_due
    }

    /// How many charges that are due a worker drops.
    pub(crate) fn uncharge(&mut self) -> u64 {
        let mut dropped = 0;
        for job in self.jobs.iter_mut().filter(|job| job.is_due && !job.is_uncharged) {
            job.is_uncharged = true;
            dropped += 1;
        }
        dropped
    }
}
