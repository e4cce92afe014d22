//! The jobs that this process acknowledged last. They are looked up on each new connection, to notice a loss.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use crate::{job::JobId, queue::link::Generation};

/// Number of jobs remembered for each partition, of the present connection and of former ones that were not looked up yet.
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
            // After an outage, many jobs may be accepted before those of the former connection are looked up.
            let former = ring.iter().take_while(|job| job.seen_on != seen_on).count();
            ring.drain(..former.saturating_sub(REMEMBERED));
            let former = former.min(REMEMBERED);
            let too_many = (ring.len() + 1 - former).saturating_sub(REMEMBERED);
            ring.drain(former..former + too_many);
            ring.push_back(Remembered { id, since, seen_on });
        }
    }

    /// The partitions of the jobs.
    pub(super) fn partitions(&self) -> Vec<u8> {
        self.lock().keys().copied().collect()
    }

    /// The jobs of the partition that were not seen on this connection yet; all of them if the partition is doubtful.
    pub(super) fn due(&self, partition: u8, current: Generation, is_doubtful: bool) -> Vec<Remembered> {
        let is_due = |job: &&Remembered| job.seen_on != current || is_doubtful;
        self.lock().get(&partition).into_iter().flatten().filter(is_due).copied().collect()
    }

    /// Forgets jobs of the partition that are gone, and notes that the others were seen on that connection.
    pub(super) fn looked_up(&self, partition: u8, jobs: &HashMap<JobId, bool>, seen_on: Generation) {
        if let Some(ring) = self.lock().get_mut(&partition) {
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

        let ids_of = |jobs: Vec<Remembered>| jobs.iter().map(|job| job.id).collect::<Vec<_>>();
        assert!(acknowledged.due(0, 1, false).is_empty());
        assert_eq!(acknowledged.due(0, 1, true).len(), REMEMBERED);
        let due = acknowledged.due(0, 2, false);
        assert_eq!(ids_of(due.clone()), ids[100 - REMEMBERED..]);

        // One is gone; one was acknowledged on the old connection meanwhile.
        let exists = due.iter().map(|job| (job.id, job.id != ids[99])).collect();
        let late = JobId::new(0);
        acknowledged.add([late].into_iter(), 1);
        acknowledged.looked_up(0, &exists, 2);

        assert_eq!(acknowledged.due(0, 2, true).len(), REMEMBERED - 1);
        assert_eq!(ids_of(acknowledged.due(0, 2, false)), [late]);
        assert_eq!(acknowledged.due(1, 2, false).len(), 1, "of a partition that was not looked up");
    }

    #[test]
    fn jobs_of_a_former_connection_stay_until_they_are_looked_up() {
        let acknowledged = Acknowledged::default();
        let add = |count: usize, seen_on| acknowledged.add((0..count).map(|_| JobId::new(0)), seen_on);
        let kept = |seen_on| acknowledged.due(0, seen_on, true).len();
        add(40, 1);
        add(3 * REMEMBERED, 2);
        assert_eq!((acknowledged.due(0, 2, false).len(), kept(2)), (40, 40 + REMEMBERED));
        add(1, 3);
        assert_eq!(kept(3), REMEMBERED + 1, "the last ones of all former connections");

        let found = acknowledged.due(0, 3, false).iter().map(|job| (job.id, true)).collect();
        acknowledged.looked_up(0, &found, 3);
        add(1, 3);
        assert_eq!(kept(3), REMEMBERED);
    }
}
