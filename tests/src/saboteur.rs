//! Panics on demand: a log subscriber panics in the task that logs a certain action, once for each action. It works for tasks
//! of the test's own thread, that is, for services that run within a test.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Metadata, Subscriber};

/// The actions that still cause a panic. Clones share them.
#[derive(Clone, Debug)]
pub struct Saboteur {
    armed: Arc<Mutex<BTreeSet<&'static str>>>,
}

impl Saboteur {
    /// Panics when one of these actions is logged on this thread, until the guard is dropped.
    #[must_use]
    pub fn start(actions: &[&'static str]) -> (Self, DefaultGuard) {
        let saboteur = Self { armed: Arc::new(Mutex::new(actions.iter().copied().collect())) };
        let guard = tracing::subscriber::set_default(saboteur.clone());
        (saboteur, guard)
    }

    /// The actions that have not been logged yet.
    #[must_use]
    pub fn armed(&self) -> Vec<&'static str> {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }
}

impl Subscriber for Saboteur {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut action = Action(None);
        event.record(&mut action);
        let Some(action) = action.0 else { return };
        let is_armed = self.armed.lock().unwrap_or_else(PoisonError::into_inner).remove(action.as_str());
        assert!(!is_armed, "a bug of the test's own, at {action}");
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Action(Option<String>);

impl Visit for Action {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "action" {
            self.0 = Some(value.to_owned());
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}
