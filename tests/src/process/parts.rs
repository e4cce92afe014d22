//! The two services of Tepal, started on free ports and waited for until they answer.

use std::ops::Deref;
use std::path::Path;
use std::time::Duration;

use super::{Service, ServiceBuilder};
use crate::http::{Answer, Client};
use crate::ports::free_port;
use crate::wait::poll;

/// Long enough for a debug build on a loaded machine to load its model.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// A running `tepal-proxy`. Process control is [`Service`]'s, by deref.
#[derive(Debug)]
pub struct Proxy {
    service: Service,
    base_url: String,
}

/// A running `tepal-worker`. Process control is [`Service`]'s, by deref.
#[derive(Debug)]
pub struct Worker {
    service: Service,
    metrics_url: String,
}

impl Proxy {
    /// Starts a proxy without a rate limit on a free port and waits until `GET /livez` answers 200. `env`
    /// overrides.
    ///
    /// # Panics
    /// When it ends or is not ready within 30 s; the text has its last log lines.
    pub async fn start(redis_url: &str, env: &[(&str, &str)]) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let settings =
            builder("tepal-proxy", redis_url).env("LISTEN_ADDR", &address).env("RATE_LIMIT_PER_MINUTE", 0);
        let proxy = Self { service: settings.envs(env).start(), base_url: format!("http://{address}") };
        proxy.ready().await;
        proxy
    }

    /// `http://127.0.0.1:<port>`, the same over restarts.
    #[must_use]
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// `127.0.0.1:<port>`, for [`raw`](crate::http::raw).
    #[must_use]
    pub fn addr(&self) -> &str {
        self.base_url.trim_start_matches("http://")
    }

    /// A client for this proxy.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(&self.base_url)
    }

    /// Waits until `GET /livez` answers 200.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn ready(&self) {
        wait_ready(&self.service, &self.base_url, "/livez").await;
    }

    /// Kills the process if it still runs, starts it again on the same port and waits until it is ready.
    pub async fn restart(&self) {
        self.service.restart();
        self.ready().await;
    }
}

impl Worker {
    /// Starts a worker with its metrics on a free port and waits until `GET /metrics` answers 200. `env`
    /// overrides.
    ///
    /// # Panics
    /// When it ends or is not ready within 30 s; the text has its last log lines.
    pub async fn start(redis_url: &str, env: &[(&str, &str)]) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let settings = builder("tepal-worker", redis_url).env("METRICS_ADDR", &address);
        let worker = Self { service: settings.envs(env).start(), metrics_url: format!("http://{address}") };
        worker.ready().await;
        worker
    }

    /// `127.0.0.1:<port>` of the metrics, the same over restarts.
    #[must_use]
    pub fn metrics_addr(&self) -> &str {
        self.metrics_url.trim_start_matches("http://")
    }

    /// The answer of `GET /metrics`; see [`Answer::metric`].
    pub async fn metrics(&self) -> Answer {
        Client::new(&self.metrics_url).get("/metrics").await
    }

    /// Waits until `GET /metrics` answers 200.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn ready(&self) {
        wait_ready(&self.service, &self.metrics_url, "/metrics").await;
    }

    /// Kills the process if it still runs, starts it again with the same settings and waits until it is
    /// ready.
    pub async fn restart(&self) {
        self.service.restart();
        self.ready().await;
    }
}

impl Deref for Proxy {
    type Target = Service;

    fn deref(&self) -> &Service {
        &self.service
    }
}

impl Deref for Worker {
    type Target = Service;

    fn deref(&self) -> &Service {
        &self.service
    }
}

fn builder(binary: &str, redis_url: &str) -> ServiceBuilder {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("compose").join("models");
    Service::binary(binary)
        .env("REDIS_URL", redis_url)
        .env("MODELS_DIR", models.display())
        .env("LOG_FORMAT", "json")
}

async fn wait_ready(service: &Service, base: &str, path: &str) {
    let client = Client::new(base).with_timeout(Duration::from_secs(2));
    let process = service.process();
    let outcome = poll(READY_WITHIN, || async {
        if !process.is_running() {
            service.logs().settled().await;
            return Ok(Err("it ended".to_owned()));
        }
        match client.try_get(path).await {
            Ok(answer) if answer.status == 200 => Ok(Ok(())),
            Ok(answer) => Err(format!("status {}", answer.status)),
            Err(error) => Err(error.to_string()),
        }
    });
    if let Err(why) = outcome.await.and_then(|ended| ended) {
        let tail = service.logs().tail(40);
        panic!("{process}: waited for GET {base}{path} to answer 200, {why}. Its last lines:\n{tail}");
    }
}
