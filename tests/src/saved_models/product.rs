//! Redis, a proxy and a worker in front of TensorFlow.

use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use super::SavedModels;
use crate::http::Client;
use crate::process::{Proxy, Worker};
use crate::redis::RedisServer;
use crate::wait::eventually;

const WITHIN: Duration = Duration::from_secs(60);

/// The whole product, serving SavedModels that a server describes.
#[derive(Debug)]
pub struct Product {
    proxy: Proxy,
    _worker: Worker,
    _redis: RedisServer,
    _models: TempDir,
}

impl Product {
    /// Starts all of it, with the server at this port, and waits until the models are served. `prepare` may write folders
    /// with a `model.toml`; otherwise there is none.
    pub async fn start(port: u16, models: &SavedModels, prepare: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().expect("a folder for models");
        prepare(folder.path());
        let names: Vec<_> = models.keys().map(String::as_str).collect();
        let default = names.first().copied().unwrap_or_default();
        let folder_name = folder.path().display().to_string();
        let models_dir = [("MODELS_DIR", folder_name.as_str()), ("MODEL_NAME", default)];
        let (names, port) = (names.join(","), port.to_string());
        let served =
            [("MODEL_BACKEND", "tensorflow_serving"), ("TF_SERVING_GRPC_PORT", &port), ("MODELS", &names)];
        let redis = RedisServer::shipped().start().await;
        let proxy = Proxy::start(&redis.proxy_url(), &models_dir).await;
        let worker = Worker::start(&redis.worker_url(), &[&models_dir[..], &served].concat()).await;
        for name in models.keys() {
            eventually(WITHIN, "the model to be described", async || {
                let answer = proxy.client().get(&format!("/models/{name}")).await;
                if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
            })
            .await;
        }
        Self { proxy, _worker: worker, _redis: redis, _models: folder }
    }

    /// A client of the proxy.
    #[must_use]
    pub fn client(&self) -> Client {
        self.proxy.client()
    }
}
