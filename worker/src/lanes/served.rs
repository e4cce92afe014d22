//! Which models the worker serves, and what is wrong with the others.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tepal_shared::job::ModelName;

use crate::run::runner::Runner;

/// The models that are served now. Clones share them.
#[derive(Clone)]
pub struct Served {
    default: ModelName,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    runners: BTreeMap<ModelName, Arc<Runner>>,
    failed: BTreeSet<ModelName>,
    undescribed: BTreeSet<ModelName>,
}

impl Served {
    /// None yet. `default` is the default model.
    #[must_use]
    pub fn new(default: ModelName) -> Self {
        Self { default, state: Arc::default() }
    }

    /// What runs each model.
    #[must_use]
    pub fn runners(&self) -> Vec<Arc<Runner>> {
        self.lock().runners.values().cloned().collect()
    }

    /// The names of the models.
    #[must_use]
    pub fn models(&self) -> Vec<ModelName> {
        self.lock().runners.keys().copied().collect()
    }

    /// The default model, or the first one if it is not served.
    #[must_use]
    pub fn main(&self) -> Option<Arc<Runner>> {
        let runners = &self.lock().runners;
        runners.get(&self.default).or_else(|| runners.values().next()).cloned()
    }

    /// Models whose present files, or whose server's description, cannot be loaded.
    #[must_use]
    pub fn failed(&self) -> Vec<ModelName> {
        self.lock().failed.iter().copied().collect()
    }

    /// Models that are not served because their server has not described them.
    #[must_use]
    pub fn undescribed(&self) -> Vec<ModelName> {
        self.lock().undescribed.iter().copied().collect()
    }

    /// This model is served now, by this runner.
    pub(super) fn begin(&self, model: ModelName, runner: Arc<Runner>) {
        self.lock().runners.insert(model, runner);
    }

    /// It is no longer served.
    pub(super) fn end(&self, model: ModelName) {
        self.lock().runners.remove(&model);
    }

    /// Its present files cannot be loaded.
    pub(super) fn fail(&self, model: ModelName) {
        let mut state = self.lock();
        state.undescribed.remove(&model);
        state.failed.insert(model);
    }

    /// It waits for its server.
    pub(super) fn wait(&self, model: ModelName) {
        self.lock().undescribed.insert(model);
    }

    /// What was wrong with it no longer matters. Returns whether it had failed.
    pub(super) fn forget(&self, model: ModelName) -> bool {
        let mut state = self.lock();
        state.undescribed.remove(&model);
        state.failed.remove(&model)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
