//! Conversions of large bodies and results, away from the threads that serve requests. Few run at a time, because the allocator
//! keeps memory for each thread that converted something.

use std::{num::NonZeroUsize, panic::resume_unwind, sync::Arc};

use tokio::{runtime::Handle, sync::Semaphore};

/// The threads for conversions.
#[derive(Clone, Debug)]
pub(crate) struct Conversions {
    threads: Handle,
    /// The most expensive JSON takes about 10 ms for each MiB, so half of the processors remain for other requests.
    permits: Arc<Semaphore>,
}

impl Conversions {
    /// Uses the blocking threads of this runtime, whichever runtime asks for a conversion.
    pub(crate) fn new(threads: Handle) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let permits = Arc::new(Semaphore::new((processors / 2).max(1)));
        Self { threads, permits }
    }

    /// Runs `convert` when it is its turn. It runs to its end even if nobody waits for it any more.
    pub(crate) async fn run<T: Send + 'static>(&self, convert: impl FnOnce() -> T + Send + 'static) -> T {
        // The semaphore is never closed.
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok();
        let converting = self.threads.spawn_blocking(move || {
            let _permit = permit;
            convert()
        });
        match converting.await {
            Ok(converted) => converted,
            Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
            // The runtime shuts down, and with it this task.
            Err(_) => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::{FutureExt as _, future::join_all};

    use super::*;

    #[tokio::test]
    async fn half_of_the_processors_convert_at_a_time() {
        let conversions = Conversions::new(Handle::current());
        let most = conversions.permits.available_permits();
        let running = Arc::new(AtomicUsize::new(0));
        let convert = |number: usize| {
            let running = Arc::clone(&running);
            conversions.run(move || {
                let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                std::thread::yield_now();
                running.fetch_sub(1, Ordering::SeqCst);
                (number, now)
            })
        };
        for (number, (converted, now)) in join_all((0..100).map(convert)).await.into_iter().enumerate() {
            assert_eq!(converted, number);
            assert!((1..=most).contains(&now), "{now} of {most}");
        }
    }

    #[tokio::test]
    async fn an_abandoned_conversion_keeps_its_permit_until_it_has_ended() {
        let conversions = Conversions::new(Handle::current());
        let all = conversions.permits.available_permits();
        let (finish, finished) = std::sync::mpsc::channel::<()>();
        let mut abandoned = Box::pin(conversions.run(move || finished.recv()));
        assert!(abandoned.as_mut().now_or_never().is_none());
        drop(abandoned);
        assert_eq!(conversions.permits.available_permits(), all - 1);
        finish.send(()).unwrap();
        let every = u32::try_from(all).unwrap();
        drop(conversions.permits.acquire_many(every).await.unwrap());
    }

    #[tokio::test]
    async fn a_panic_reaches_the_caller() {
        let conversions = Conversions::new(Handle::current());
        let run = std::panic::AssertUnwindSafe(conversions.run(|| panic!("on purpose")));
        assert!(run.catch_unwind().await.is_err());
    }
}
