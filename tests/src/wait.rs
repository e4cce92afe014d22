//! Waiting for a condition. Tests never sleep for a fixed time. They poll with small growing pauses until a timeout.
//! A wait that fails names the condition, the caller's line and the last state.

use std::fmt::Display;
use std::future::Future;
use std::panic::Location;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// The outcome of one check of a condition: `Option<T>`, `bool`, or `Result<T, state>` whose `Err` describes the
/// state (it appears in the panic text).
pub trait Seen {
    /// The value that the wait returns once the condition holds.
    type Value;

    /// The value, or a description of the state.
    fn seen(self) -> Result<Self::Value, String>;
}

impl<T> Seen for Option<T> {
    type Value = T;

    fn seen(self) -> Result<T, String> {
        self.ok_or_else(|| "nothing yet".to_owned())
    }
}

impl<T, E: Display> Seen for Result<T, E> {
    type Value = T;

    fn seen(self) -> Result<T, String> {
        self.map_err(|state| state.to_string())
    }
}

impl Seen for bool {
    type Value = ();

    fn seen(self) -> Result<(), String> {
        if self { Ok(()) } else { Err("false".to_owned()) }
    }
}

/// Calls `look` until it gives a value, at most for `within`.
///
/// # Panics
/// When the time is over. The text names `what`, the caller's line, the time and the last state seen.
#[track_caller]
pub fn eventually<F, O>(within: Duration, what: &str, mut look: F) -> impl Future<Output = O::Value>
where
    F: AsyncFnMut() -> O,
    O: Seen,
{
    let caller = Location::caller();
    async move {
        let mut wait = Wait::new(within);
        loop {
            match wait.take(look()).await {
                Some(Ok(value)) => return value,
                Some(Err(gave_up)) => panic!("{caller}: waited for {what}, {gave_up}"),
                None => {}
            }
        }
    }
}

/// [`eventually`] that returns the failure text instead of panicking.
///
/// It takes a closure that returns a future: unlike an async closure it may borrow nothing mutably, but the
/// wait can be part of a spawned task (the compiler cannot yet see that an async closure's future is `Send`).
///
/// # Errors
/// How long it waited, and the last state seen.
pub async fn poll<F, Fut>(within: Duration, mut look: F) -> Result<<Fut::Output as Seen>::Value, String>
where
    F: FnMut() -> Fut,
    Fut: Future<Output: Seen>,
{
    let mut wait = Wait::new(within);
    loop {
        if let Some(outcome) = wait.take(look()).await {
            return outcome;
        }
    }
}

/// One wait in progress.
struct Wait {
    started: Instant,
    within: Duration,
    pause: Duration,
    looks: u32,
    last: Option<String>,
}

impl Wait {
    fn new(within: Duration) -> Self {
        Self { started: Instant::now(), within, pause: FIRST_PAUSE, looks: 0, last: None }
    }

    /// Takes one look. `None` after a pause: look again.
    async fn take<O: Seen>(&mut self, look: impl Future<Output = O>) -> Option<Result<O::Value, String>> {
        match timeout(self.left(), look).await.map(Seen::seen) {
            Ok(Ok(value)) => return Some(Ok(value)),
            Ok(Err(state)) => self.last = Some(state),
            Err(_) => return Some(Err(self.gave_up("; the last look never returned"))),
        }
        self.looks += 1;
        if self.left().is_zero() {
            return Some(Err(self.gave_up("")));
        }
        sleep(self.pause.min(self.left())).await;
        self.pause = (self.pause * 3 / 2).min(LONGEST_PAUSE);
        None
    }

    fn left(&self) -> Duration {
        self.within.saturating_sub(self.started.elapsed())
    }

    fn gave_up(&self, note: &str) -> String {
        let last = self.last.as_deref().unwrap_or("nothing at all");
        format!("gave up after {:?} and {} looks; last seen: {last}{note}", self.within, self.looks)
    }
}
