//! How many rows a call may have now. When a backend fails calls because of their size, the limit is halved for a while.
//! Then it doubles again, step by step. Each step that fails doubles the wait before the next one.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tepal_shared::job::ModelName;
use tokio::time::Instant;
use tracing::info;

use crate::metrics;

const FIRST_WHILE: Duration = Duration::from_secs(2);
const LONGEST_WHILE: Duration = Duration::from_secs(120);

/// The limit of this process. Clones share it.
#[derive(Clone, Debug)]
pub struct BatchLimit {
    model: ModelName,
    state: Arc<Mutex<RowLimit>>,
}

#[derive(Debug)]
struct RowLimit {
    limit: usize,
    max: usize,
    /// When the limit doubles; `None` while it is `max`.
    raise_at: Option<Instant>,
    while_low: Duration,
    /// No call has shown yet whether the last step up was right.
    is_trying: bool,
}

impl BatchLimit {
    /// At most `max` rows of a call of the model.
    #[must_use]
    pub fn new(model: ModelName, max: usize) -> Self {
        metrics::batch_rows_limit(model, max);
        let state = RowLimit { limit: max, max, raise_at: None, while_low: FIRST_WHILE, is_trying: false };
        Self { model, state: Arc::new(Mutex::new(state)) }
    }

    /// Most rows of a call that starts now.
    #[must_use]
    pub fn rows(&self) -> usize {
        let mut state = self.state();
        let now = Instant::now();
        if state.raise_at.is_some_and(|at| at <= now) {
            state.limit = (state.limit * 2).min(state.max);
            state.is_trying = true;
            state.raise_at = (state.limit < state.max).then(|| now + state.while_low);
            metrics::batch_rows_limit(self.model, state.limit);
        }
        state.limit
    }

    /// A call of this many rows failed, perhaps because of their number.
    pub fn lower(&self, rows: usize) {
        let mut state = self.state();
        let limit = (rows / 2).max(1);
        if limit >= state.limit {
            return;
        }
        if std::mem::take(&mut state.is_trying) {
            state.while_low = (state.while_low * 2).min(LONGEST_WHILE);
        }
        state.limit = limit;
        state.raise_at = Some(Instant::now() + state.while_low);
        metrics::batch_rows_limit(self.model, limit);
        info!(action = "batch_limit_lowered", model = self.model.as_str(), rows = limit);
    }

    /// A call of this many rows succeeded.
    pub fn succeeded(&self, rows: usize) {
        let mut state = self.state();
        if state.is_trying && rows > state.limit / 2 {
            state.is_trying = false;
            if state.limit == state.max {
                state.while_low = FIRST_WHILE;
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, RowLimit> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_limit_halves_what_failed_and_comes_back_by_itself() {
        let limit = BatchLimit::new("iris".parse().unwrap(), 256);
        limit.lower(200);
        assert_eq!(limit.rows(), 100);
        limit.lower(256);
        assert_eq!(limit.rows(), 100, "another call that began before");
        limit.lower(1);
        assert_eq!(limit.rows(), 1);

        for expected in [2, 4, 8, 16, 32, 64, 128, 256] {
            tokio::time::advance(FIRST_WHILE).await;
            assert_eq!(limit.rows(), expected);
            limit.succeeded(expected);
        }
        tokio::time::advance(LONGEST_WHILE).await;
        assert_eq!(limit.rows(), 256);
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_up_that_fails_is_tried_less_and_less_often() {
        let limit = BatchLimit::new("iris".parse().unwrap(), 256);
        limit.lower(32);
        let mut tries = 0;
        for _ in 0..600 {
            tokio::time::advance(Duration::from_secs(1)).await;
            if limit.rows() > 16 {
                tries += 1;
                limit.lower(32);
            } else {
                limit.succeeded(16);
            }
        }
        assert!((6..15).contains(&tries), "{tries} tries in ten minutes");
    }
}
