//! Steady traffic: stories start at their times, however slow the answers are, up to a limit. Clients that repeat requests
//! must not keep a slow machine from recovering.

use std::sync::Arc;
use std::time::Instant;

use tokio::task::JoinSet;
use tokio::time::{Duration, sleep_until};

use super::story::Story;
use super::{Options, Stack};
use crate::history::Recorder;

/// Stories under way at a time; the next one waits.
const MOST: usize = 600;

/// Starts stories at the run's rate until the time is over, and returns when all have ended.
pub(super) async fn run(stack: Arc<Stack>, recorder: Recorder, options: Options, until: Instant) {
    let began = Instant::now();
    let mut stories = JoinSet::new();
    for serial in 1.. {
        let due = began + Duration::from_secs_f64(serial as f64 / options.rate);
        if due >= until {
            break;
        }
        sleep_until(due.into()).await;
        while stories.len() >= MOST {
            stories.join_next().await.expect("there are some").expect("a story does not panic");
        }
        stories.spawn(Story::new(Arc::clone(&stack), recorder.clone(), &options, serial).run());
        while let Some(ended) = stories.try_join_next() {
            ended.expect("a story does not panic");
        }
    }
    while let Some(ended) = stories.join_next().await {
        ended.expect("a story does not panic");
    }
}
