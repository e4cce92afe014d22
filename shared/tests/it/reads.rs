//! Large reads leave room for small ones on the shared connection.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::queue::Queue;

const MANY: usize = 1000;

#[tokio::test]
async fn a_job_is_read_before_a_large_read_that_began_earlier_has_ended() {
    let queue = Queue::start().await;
    let id = queue.submit().await;
    let ids = vec![id; MANY];
    let has_ended = AtomicBool::new(false);
    let large = async {
        let jobs = queue.store.views.jobs(&ids).await.unwrap();
        has_ended.store(true, Ordering::SeqCst);
        jobs
    };
    let small = async {
        let job = queue.store.views.job(id).await.unwrap();
        (job, has_ended.load(Ordering::SeqCst))
    };
    let (jobs, (job, had_ended)) = tokio::join!(biased; large, small);
    assert!(!had_ended);
    assert_eq!(jobs, vec![job; MANY]);
}
