//! The background tasks of the proxy. Each is supervised: it is restarted after a panic.

use std::sync::Arc;

use tepal_shared::{process::supervisor::Tasks, queue::doctor::warn_about_default_user};
use tokio::sync::watch;

use crate::{
    http::certificate::Renewal, jobs::own_models::Follower, probe::Probe, reload::Files, snapshot::Snapshot,
    state::App,
};

/// Files that may change while the service runs.
pub(crate) struct Followed {
    pub(crate) models: Follower,
    pub(crate) keys_file: Option<Files<1>>,
    pub(crate) renewal: Option<Renewal>,
}

/// Starts the tasks. They end when the returned value is dropped.
pub(crate) fn start(app: &Arc<App>, snapshots: watch::Sender<Arc<Snapshot>>, followed: Followed) -> Tasks {
    let Followed { models, keys_file, renewal } = followed;
    let mut tasks = Tasks::new(app.shutdown.clone());
    let probed = Arc::clone(app);
    tasks.keep("probe", move |_| Probe::new(Arc::clone(&probed), snapshots.clone()).run());
    tasks.keep("models", move |_| models.clone().run());
    let counted = Arc::clone(app);
    tasks.keep("metrics_upkeep", move |_| {
        let app = Arc::clone(&counted);
        async move { app.metrics.upkeep().await }
    });
    if let Some(limit) = app.admission.rate_limit.clone() {
        tasks.keep("rate_limit_upkeep", move |_| {
            let limit = Arc::clone(&limit);
            async move { limit.upkeep().await }
        });
    }
    if let Some(file) = keys_file {
        let let_in = Arc::clone(app);
        tasks.keep("api_keys", move |_| follow_keys(Arc::clone(&let_in), file.clone()));
    }
    if let Some(renewal) = renewal {
        tasks.keep("certificate", move |_| renewal.clone().run());
    }
    let (redis, keys) = (app.store.queue().redis().clone(), app.store.queue().keys().clone());
    tasks.finish("default_user_check", move || warn_about_default_user(redis.clone(), keys.clone()));
    tasks
}

async fn follow_keys(app: Arc<App>, mut file: Files<1>) {
    if let Some(access) = &app.admission.access {
        access.follow(&mut file).await;
    }
}
