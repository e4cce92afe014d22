//! Signs of life of the backend. A server that does not answer a probe may only be busy. Running calls and answered calls,
//! also refused ones, show that it lives.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// How long after a success a refused call counts as load, not as an outage.
const RECENT: Duration = Duration::from_secs(5);

/// The signs of life that this process has seen. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Vitals {
    state: Arc<Mutex<Signs>>,
}

#[derive(Debug, Default)]
struct Signs {
    running: usize,
    answered_at: Option<Instant>,
    succeeded_at: Option<Instant>,
    /// Start of the first abandoned call, if no call was answered since.
    unanswered_since: Option<Instant>,
    /// Whether the backend had enough time to answer one of the abandoned calls.
    is_silent: bool,
}

/// A running call. Dropping it ends the call.
#[derive(Debug)]
pub struct Running {
    vitals: Vitals,
}

impl Vitals {
    /// A call starts.
    #[must_use]
    pub fn begin(&self) -> Running {
        self.state().running += 1;
        Running { vitals: self.clone() }
    }

    /// The backend answered, perhaps with a refusal.
    pub fn answered(&self) {
        let mut state = self.state();
        (state.answered_at, state.unanswered_since, state.is_silent) = (Some(Instant::now()), None, false);
    }

    /// A call succeeded.
    pub fn succeeded(&self) {
        self.answered();
        self.state().succeeded_at = Some(Instant::now());
    }

    /// A call that started at `began` was abandoned. Several calls with short limits together count like one with `enough` time.
    pub fn given_up(&self, began: Instant, enough: Duration) {
        let mut state = self.state();
        let first = *state.unanswered_since.get_or_insert(began);
        state.is_silent |= first.elapsed() >= enough;
    }

    /// Whether a call has succeeded since this time.
    #[must_use]
    pub fn has_succeeded_since(&self, since: Instant) -> bool {
        self.state().succeeded_at.is_some_and(|at| at >= since)
    }

    /// Whether other calls run, or one succeeded a moment ago. A call that is refused then is one too many.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        let state = self.state();
        state.works() || state.succeeded_at.is_some_and(|at| at.elapsed() < RECENT)
    }

    /// Whether there is a sign of life since this time.
    #[must_use]
    pub fn has_lived_since(&self, since: Instant) -> bool {
        let state = self.state();
        state.works() || state.answered_at.is_some_and(|at| at >= since)
    }

    fn state(&self) -> MutexGuard<'_, Signs> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Signs {
    /// A running call is a sign of life until one call has waited in vain.
    fn works(&self) -> bool {
        self.running > 0 && !self.is_silent
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.vitals.state().running -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENOUGH: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn a_call_that_runs_is_a_sign_of_life_until_one_waits_in_vain() {
        let vitals = Vitals::default();
        let began = Instant::now();
        assert!(!vitals.has_lived_since(began));
        let running = vitals.begin();
        assert!(vitals.has_lived_since(began) && vitals.is_serving());
        tokio::time::advance(ENOUGH).await;
        vitals.given_up(began, ENOUGH);
        assert!(!vitals.has_lived_since(began) && !vitals.is_serving());
        vitals.answered();
        assert!(vitals.has_lived_since(began));
        drop(running);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!vitals.has_lived_since(Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn calls_with_little_time_show_together_that_the_backend_is_silent() {
        let vitals = Vitals::default();
        let _running = vitals.begin();
        for _ in 0..9 {
            let began = Instant::now();
            tokio::time::advance(ENOUGH / 10).await;
            vitals.given_up(began, ENOUGH);
            assert!(vitals.is_serving());
        }
        let began = Instant::now();
        tokio::time::advance(ENOUGH / 10).await;
        vitals.given_up(began, ENOUGH);
        assert!(!vitals.is_serving());
    }

    #[tokio::test(start_paused = true)]
    async fn a_success_shows_for_a_moment_that_a_refusal_is_load() {
        let vitals = Vitals::default();
        vitals.answered();
        assert!(!vitals.is_serving(), "a refusal alone shows no service");
        vitals.succeeded();
        assert!(vitals.is_serving());
        tokio::time::advance(RECENT).await;
        assert!(!vitals.is_serving());
    }
}
