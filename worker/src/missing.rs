//! Jobs that this worker held and Redis does not have any more, although they cannot have expired: the leases and outcomes
//! of all held jobs are written anyway, so nothing is asked for their sake.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tepal_shared::{job::JobId, store::LookedUp};

/// Those found since the last report. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Missing(Arc<Mutex<HashSet<JobId>>>);

impl Missing {
    /// Redis does not have the job.
    pub fn add(&self, id: JobId) {
        self.lock().insert(id);
    }

    /// What was found since the last call, of those and of the `held` jobs that Redis still has.
    #[must_use]
    pub fn take(&self, held: usize) -> LookedUp {
        let missing = std::mem::take(&mut *self.lock()).len() as u64;
        LookedUp { missing, of: missing + held as u64 }
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<JobId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
