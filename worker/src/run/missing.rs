//! Jobs that this worker held and Redis no longer has, although they cannot have expired. The worker renews and settles all
//! held jobs anyway, so finding the lost ones costs no command.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tepal_shared::{job::JobId, queue::loss::LookedUp};

/// The lost jobs found since the last report. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Missing(Arc<Mutex<HashSet<JobId>>>);

impl Missing {
    /// Records that Redis does not have the job.
    pub fn add(&self, id: JobId) {
        self.lock().insert(id);
    }

    /// The lost jobs since the last call, and how many jobs were held: those and the `held` ones that Redis still has.
    #[must_use]
    pub fn take(&self, held: usize) -> LookedUp {
        let missing = std::mem::take(&mut *self.lock()).len() as u64;
        LookedUp { missing, of: missing + held as u64 }
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<JobId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
