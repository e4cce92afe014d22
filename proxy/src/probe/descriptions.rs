//! Reads the descriptions that workers published.

use std::{sync::Arc, time::Duration};

use tepal_shared::{model::Model, process::telemetry, queue::error::StoreError};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::{
    jobs::{models::Served, store::Store},
    snapshot::Workers,
    state::App,
};

/// How often they are read although no live worker reports another one.
const INTERVAL: Duration = Duration::from_secs(30);

/// The descriptions as they were last read.
#[derive(Debug, Default)]
pub(super) struct Descriptions {
    read_at: Option<Instant>,
    /// How many the proxy had removed before that.
    removals: u64,
    published: Vec<Arc<Served>>,
}

impl Descriptions {
    /// Reads them if there may be others, and updates the models of the proxy.
    pub(super) async fn look(&mut self, app: &App, workers: &Workers) -> Result<(), StoreError> {
        let removals = app.models.removals();
        if removals != self.removals || !self.is_up_to_date(workers) {
            self.published = self.read(&app.store).await?;
            (self.read_at, self.removals) = (Some(Instant::now()), removals);
        }
        app.models.update(&self.published, |name| Some(&workers.models.get(name)?.descriptions));
        Ok(())
    }

    fn is_up_to_date(&self, workers: &Workers) -> bool {
        let is_known = |(name, fingerprint): (&String, &String)| {
            self.published.iter().any(|served| served.is(name, fingerprint))
        };
        let mut reported = workers
            .models
            .iter()
            .flat_map(|(name, state)| state.descriptions.iter().map(move |fingerprint| (name, fingerprint)));
        self.read_at.is_some_and(|at| at.elapsed() < INTERVAL) && reported.all(is_known)
    }

    async fn read(&self, store: &Store) -> Result<Vec<Arc<Served>>, StoreError> {
        let mut published = Vec::new();
        for (name, text) in store.views.published_models().await? {
            let fingerprint = Model::fingerprint(&text);
            if let Some(known) = self.published.iter().find(|served| served.is(&name, &fingerprint)) {
                published.push(Arc::clone(known));
                continue;
            }
            match (name.parse(), Model::from_published(&text)) {
                (Ok(known), Ok(description)) => {
                    info!(action = "description_read", model = name);
                    published.push(Arc::new(Served::published(known, description, fingerprint)));
                }
                (Err(error), _) => warn!(action = "description_rejected", error = telemetry::chain(&error)),
                (_, Err(error)) => {
                    warn!(action = "description_rejected", model = name, error = telemetry::chain(&error))
                }
            }
        }
        Ok(published)
    }
}
