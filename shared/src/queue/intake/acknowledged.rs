//! The jobs that this process acknowledged last. They are looked up on each new connection, to notice a loss.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use crate::{job::JobId, queue::link::Generation};

/// Number of jobs remembered for each partition.
const REMEMBERED: usize = 64;

/// The last acknowledged jobs of each partition. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Acknowledged(Arc<Mutex<HashMap<u8, VecDeque<Remembered>>>>);

/// An acknowledged job.
#[derive(Clone, Copy, Debug)]
pub(super) struct Remembered {
    pub(super) id: JobId,
    pub(super) since: Instant,
    /// The newest connection on which Redis was known to have the job.
    seen_on: Generation,
}

impl Acknowledged {
    /// Remembers jobs that Redis accepted on that connection.
    pub(super) fn add(&self, ids: impl Iterator<Item = JobId>, seen_on: Generation) {
        let (mut rings, since) = (self.lock(), Instant::now());
        for id in ids {
            let ring = rings.entry(id.partition()).or_default();
            if ring.len() == REMEMBERED {
                ring.pop_front();
            }
            ring.push_back(Remembered { id, since, seen_on });
        }
    }

    /// The jobs that were not seen on this connection yet, and all jobs of doubtful partitions.
    pub(super) fn due(&self, current: Generation, doubtful: &[u8]) -> Vec<Remembered> {
        let is_due = |job: &&Remembered| job.seen_on != current || doubtful.contains(&job.id.partition());
        self.lock().values().flatten().filter(is_due).copied().collect()
    }

    /// Forgets jobs that are gone, and notes that the others were seen on that connection.
    pub(super) fn looked_up(&self, jobs: &HashMap<JobId, bool>, seen_on: Generation) {
        for ring in self.lock().values_mut() {
            ring.retain(|job| jobs.get(&job.id) != Some(&false));
            let seen = ring.iter_mut().filter(|job| jobs.contains_key(&job.id));
            seen.for_each(|job| job.seen_on = seen_on);
        }
    }

    /// Each critical section leaves the map whole, so a poisoned lock is harmless.
    fn lock(&self) -> MutexGuard<'_, HashMap<u8, VecDeque<Remembered>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_jobs_of_each_partition_are_remembered_and_looked_up_once_a_connection() {
        let acknowledged = Acknowledged::default();
        let ids: Vec<_> = (0..100).map(|_| JobId::new(0)).collect();
        acknowledged.add(ids.iter().copied().chain([JobId::new(1)]), 1);

        assert!(acknowledged.due(1, &[]).is_empty());
        assert_eq!(acknowledged.due(1, &[0, 1]).len(), REMEMBERED + 1);
        let due = acknowledged.due(2, &[]);
        let of_first: Vec<_> = due.iter().map(|job| job.id).filter(|id| id.partition() == 0).collect();
        assert_eq!(of_first, ids[100 - REMEMBERED..]);

        // One is gone; one was acknowledged on the old connection meanwhile.
        let exists = due.iter().map(|job| (job.id, job.id != ids[99])).collect();
        let late = JobId::new(1);
        acknowledged.add([late].into_iter(), 1);
        acknowledged.looked_up(&exists, 2);

        assert_eq!(acknowledged.due(2, &[0, 1]).len(), REMEMBERED + 1);
        assert_eq!(acknowledged.due(2, &[]).iter().map(|job| job.id).collect::<Vec<_>>(), [late]);
    }
}
