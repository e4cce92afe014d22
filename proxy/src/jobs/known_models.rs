//! The models that this proxy knows, and where they come from: its MODELS_DIR, and the workers.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use tepal_shared::job::ModelName;

use super::models::{Registry, Served};

/// The models that this proxy knows. They change while it runs.
#[derive(Debug)]
pub(crate) struct Models {
    sources: Mutex<Sources>,
    /// MODEL_NAME, if it is set.
    preferred: Option<ModelName>,
    current: RwLock<Arc<Registry>>,
    /// How many descriptions this proxy removed from Redis.
    removals: AtomicU64,
}

/// Where the models come from.
#[derive(Debug, Default)]
struct Sources {
    /// Those in MODELS_DIR.
    own: BTreeMap<ModelName, Arc<Served>>,
    /// Those in MODELS_DIR whose present files cannot be read.
    failed: BTreeSet<ModelName>,
    /// Those that workers published, with descriptions that no live worker reports.
    unused: Vec<Arc<Served>>,
    /// The others.
    used: Vec<Arc<Served>>,
}

impl Models {
    pub(crate) fn new(own: Vec<Arc<Served>>, preferred: Option<ModelName>) -> Self {
        let own = own.into_iter().map(|served| (served.name, served)).collect();
        let sources = Mutex::new(Sources { own, ..Sources::default() });
        let models = Self { sources, preferred, current: RwLock::default(), removals: AtomicU64::new(0) };
        models.change(|_| {});
        models
    }

    /// All models as they are now.
    pub(crate) fn registry(&self) -> Arc<Registry> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether it is in MODELS_DIR.
    pub(crate) fn is_own(&self, name: ModelName) -> bool {
        self.sources().own.contains_key(&name)
    }

    /// Forgets a model whose description was removed from Redis.
    pub(crate) fn remove(&self, name: ModelName) {
        self.removals.fetch_add(1, Ordering::Relaxed);
        self.change(|sources| {
            sources.unused.retain(|served| served.name != name);
            sources.used.retain(|served| served.name != name);
        });
    }

    /// A model in MODELS_DIR was read.
    pub(crate) fn own_read(&self, served: Arc<Served>) {
        self.change(|sources| {
            sources.failed.remove(&served.name);
            sources.own.insert(served.name, served);
        });
    }

    /// A model is no longer in MODELS_DIR.
    pub(crate) fn own_removed(&self, name: ModelName) {
        self.change(|sources| {
            sources.failed.remove(&name);
            sources.own.remove(&name);
        });
    }

    /// The files of a model in MODELS_DIR cannot be read. An earlier description stays.
    pub(crate) fn own_failed(&self, name: ModelName) {
        self.sources().failed.insert(name);
    }

    /// The models in MODELS_DIR whose present files cannot be read.
    pub(crate) fn failed(&self) -> Vec<ModelName> {
        self.sources().failed.iter().copied().collect()
    }

    /// How many descriptions this proxy removed from Redis.
    pub(crate) fn removals(&self) -> u64 {
        self.removals.load(Ordering::Relaxed)
    }

    /// The models in MODELS_DIR of which live workers have other descriptions only. `live`: the fingerprints that live workers report.
    pub(crate) fn differing<'a>(
        &self,
        live: impl Fn(&str) -> Option<&'a BTreeSet<String>>,
    ) -> Vec<ModelName> {
        let sources = self.sources();
        let differs = |served: &&Arc<Served>| {
            // A worker of an earlier release reports no fingerprint.
            let reported = live(served.name.as_str()).filter(|live| !live.contains(""));
            reported.is_some_and(|live| {
                !live.contains(&served.fingerprint) && !live.contains(&served.on_a_server())
            })
        };
        sources.own.values().filter(differs).map(|served| served.name).collect()
    }

    fn sources(&self) -> MutexGuard<'_, Sources> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes where models come from. The description of a live worker wins over that in MODELS_DIR, which wins over one that no live
    /// worker has.
    fn change(&self, change: impl FnOnce(&mut Sources)) {
        let mut sources = self.sources();
        change(&mut sources);
        // The last one of a name wins.
        let models = sources.unused.iter().chain(sources.own.values()).chain(&sources.used);
        let registry = Registry::new(models.cloned(), self.preferred);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(registry);
    }

    /// Replaces the models that workers published. `live`: the fingerprints that live workers report of a model.
    pub(crate) fn update<'a>(
        &self,
        published: &[Arc<Served>],
        live: impl Fn(&str) -> Option<&'a BTreeSet<String>>,
    ) {
        let is_live = |served: &&Arc<Served>| {
            live(served.name.as_str()).is_some_and(|live| live.contains(&served.fingerprint))
        };
        self.change(|sources| {
            (sources.used, sources.unused) = published.iter().cloned().partition(|served| is_live(&served));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::models::iris;

    #[test]
    fn the_description_of_a_live_worker_wins_and_that_of_a_dead_one_is_the_last_resort() {
        let described = |name: &str, max_batch| {
            let mut description = iris().description.clone();
            description.max_batch = max_batch;
            Arc::new(Served::new(name.parse().unwrap(), description))
        };
        let models = Models::new(vec![described("a", 1), described("b", 1)], None);
        let published = [described("a", 2), described("b", 2), described("c", 2)];
        let live = BTreeSet::from([published[0].fingerprint.clone()]);

        models.update(&published, |name| (name == "a").then_some(&live));

        let registry = models.registry();
        let seen: Vec<_> =
            registry.iter().map(|served| (served.name.as_str(), served.description.max_batch)).collect();
        assert_eq!(seen, [("a", 2), ("b", 1), ("c", 2)]);
    }
}
