//! Reads that several requests share: a request for something that is being read already waits for that read.

use std::{
    collections::HashMap,
    ptr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use tepal_shared::job::JobId;
use tokio::time::Instant;

/// All reads of one kind, at most one for each job that others can join.
pub(crate) struct SingleFlight<T: Clone>(Arc<Flights<T>>);

type Flights<T> = Mutex<HashMap<JobId, Weak<Flight<T>>>>;

/// One read, in progress or done. Others can join it as long as somebody holds it. It is driven by the tasks that wait for it, so
/// it stops with the last one.
pub(crate) struct Flight<T: Clone> {
    id: JobId,
    begun: Instant,
    outcome: Shared<BoxFuture<'static, T>>,
    all: Arc<Flights<T>>,
}

impl<T: Clone> Default for SingleFlight<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T: Clone + Send + Sync + 'static> SingleFlight<T> {
    /// The read of this job, if there is one that `fits`, or a new one.
    pub(crate) fn join(
        &self,
        id: JobId,
        fits: impl FnOnce(&Flight<T>) -> bool,
        read: impl FnOnce() -> BoxFuture<'static, T>,
    ) -> Arc<Flight<T>> {
        // Declared before the lock, so dropped after it: dropping the last handle of a flight takes the lock.
        let found;
        let mut flights = lock(&self.0);
        found = flights.get(&id).and_then(Weak::upgrade);
        let joined = match &found {
            Some(flight) if fits(flight) => Arc::clone(flight),
            _ => {
                let (begun, outcome, all) = (Instant::now(), read().shared(), Arc::clone(&self.0));
                let flight = Arc::new(Flight { id, begun, outcome, all });
                flights.insert(id, Arc::downgrade(&flight));
                flight
            }
        };
        drop(flights);
        joined
    }
}

impl<T: Clone> Flight<T> {
    /// When the read began. It shows everything that had happened by then.
    pub(crate) fn begun(&self) -> Instant {
        self.begun
    }

    /// Waits for the outcome of the read.
    pub(crate) async fn outcome(&self) -> T {
        self.outcome.clone().await
    }

    /// The outcome of the read, if it is done.
    pub(crate) fn peek(&self) -> Option<&T> {
        self.outcome.peek()
    }
}

impl<T: Clone> Drop for Flight<T> {
    fn drop(&mut self) {
        let mut flights = lock(&self.all);
        // A newer flight may have replaced it.
        if flights.get(&self.id).is_some_and(|flight| ptr::eq(flight.as_ptr(), self)) {
            flights.remove(&self.id);
        }
    }
}

fn lock<T: Clone>(flights: &Flights<T>) -> MutexGuard<'_, HashMap<JobId, Weak<Flight<T>>>> {
    flights.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;
    use tokio::sync::Semaphore;

    use super::*;

    /// Counts reads; each ends when it gets a permit.
    #[derive(Default)]
    struct Source {
        reads: AtomicUsize,
        ends: Option<Semaphore>,
    }

    fn read(source: &Arc<Source>) -> BoxFuture<'static, usize> {
        let source = Arc::clone(source);
        async move {
            let number = source.reads.fetch_add(1, Ordering::SeqCst) + 1;
            if let Some(ends) = &source.ends {
                ends.acquire().await.unwrap().forget();
            }
            number
        }
        .boxed()
    }

    fn slow() -> Arc<Source> {
        Arc::new(Source { ends: Some(Semaphore::new(0)), ..Source::default() })
    }

    #[tokio::test]
    async fn who_comes_during_a_read_gets_its_outcome() {
        let (source, all, id) = (slow(), SingleFlight::default(), JobId::new(0));
        let flights: Vec<_> = (0..100).map(|_| all.join(id, |_| true, || read(&source))).collect();
        let other = all.join(JobId::new(0), |_| true, || read(&source));
        source.ends.as_ref().unwrap().add_permits(2);
        assert_eq!(join_all(flights.iter().map(|flight| flight.outcome())).await, [1; 100]);
        assert_eq!(other.outcome().await, 2, "another job is another read");
    }

    #[tokio::test]
    async fn a_read_goes_on_when_the_one_who_began_it_leaves() {
        let (source, all, id) = (slow(), SingleFlight::default(), JobId::new(0));
        let first = all.join(id, |_| true, || read(&source));
        let second = all.join(id, |_| true, || read(&source));
        assert!(first.outcome().now_or_never().is_none());
        drop(first);
        source.ends.as_ref().unwrap().add_permits(1);
        assert_eq!(second.outcome().await, 1);
    }

    #[tokio::test]
    async fn a_read_is_found_as_long_as_somebody_keeps_it() {
        let (source, all, id) = (Arc::<Source>::default(), SingleFlight::default(), JobId::new(0));
        let join = || all.join(id, |_| true, || read(&source));
        let first = join();
        assert_eq!((first.outcome().await, join().outcome().await), (1, 1));
        drop(first);
        assert!(lock(&all.0).is_empty());
        assert_eq!(join().outcome().await, 2);
    }

    #[tokio::test]
    async fn one_that_does_not_fit_is_replaced_and_leaves_the_new_one_in_its_place() {
        let (source, all, id) = (Arc::<Source>::default(), SingleFlight::default(), JobId::new(0));
        let old = all.join(id, |_| true, || read(&source));
        assert_eq!(old.outcome().await, 1);
        let heard = Instant::now();
        let new = all.join(id, |flight| flight.begun() > heard, || read(&source));
        drop(old);
        let joined = all.join(id, |flight| flight.begun() >= heard, || read(&source));
        assert_eq!((new.outcome().await, joined.outcome().await), (2, 2));
        assert!(Arc::ptr_eq(&new, &joined));
        drop((new, joined));
        assert!(lock(&all.0).is_empty());
    }
}
