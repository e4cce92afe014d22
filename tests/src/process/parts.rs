//! The two services of Tepal, started on free ports and waited for until they answer.

use std::ops::Deref;
use std::path::Path;
use std::time::Duration;

use super::{Service, ServiceBuilder, Sink};
use crate::certificates::{Authority, Pair};
use crate::http::{Answer, Client};
use crate::ports::free_port;
use crate::wait::poll;

/// Long enough for a debug build on a loaded machine to load its model.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// A running `tepal-proxy`. Process control is [`Service`]'s, by deref.
#[derive(Debug)]
pub struct Proxy {
    service: Service,
    client: Client,
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
        Self::start_writing_to(Sink::Logs, redis_url, env).await
    }

    /// The same with its output elsewhere.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn start_writing_to(sink: Sink, redis_url: &str, env: &[(&str, &str)]) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let base_url = format!("http://{address}");
        let client = Client::new(&base_url);
        let service = proxy(redis_url, &address).sink(sink).envs(env).start();
        Self { service, client, base_url }.when_ready().await
    }

    /// The same with a soft and a hard limit of open files.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn start_limited(redis_url: &str, open_files: (u64, u64), env: &[(&str, &str)]) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let base_url = format!("http://{address}");
        let client = Client::new(&base_url);
        let service = proxy(redis_url, &address).open_files(open_files.0, open_files.1).envs(env).start();
        Self { service, client, base_url }.when_ready().await
    }

    /// The same with TLS: the proxy uses `pair`, which must be for the address 127.0.0.1, and the client trusts
    /// `authority`. If the proxy requests a certificate, the client shows the same one.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn start_secured(
        redis_url: &str,
        pair: &Pair,
        authority: &Authority,
        env: &[(&str, &str)],
    ) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let base_url = format!("https://{address}");
        let client = Client::trusting(&base_url, authority, Some(pair));
        let builder = proxy(redis_url, &address)
            .env("TLS_CERT_FILE", pair.certificate.display())
            .env("TLS_KEY_FILE", pair.key.display());
        Self { service: builder.envs(env).start(), client, base_url }.when_ready().await
    }

    async fn when_ready(self) -> Self {
        self.ready().await;
        self
    }

    /// `http://127.0.0.1:<port>`, the same over restarts; `https` with TLS.
    #[must_use]
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// `127.0.0.1:<port>`, for [`raw`](crate::http::raw).
    #[must_use]
    pub fn addr(&self) -> &str {
        self.base_url.split_once("://").map_or("", |(_, address)| address)
    }

    /// A client for this proxy.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Waits until `GET /livez` answers 200.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn ready(&self) {
        wait_ready(&self.service, &self.client, &format!("{}/livez", self.base_url), "/livez").await;
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
        Self::start_writing_to(Sink::Logs, redis_url, env).await
    }

    /// The same with its output elsewhere.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn start_writing_to(sink: Sink, redis_url: &str, env: &[(&str, &str)]) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let settings = builder("tepal-worker", redis_url).env("METRICS_ADDR", &address).sink(sink);
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
        let client = Client::new(&self.metrics_url);
        wait_ready(&self.service, &client, &format!("{}/metrics", self.metrics_url), "/metrics").await;
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

/// A proxy's settings before the test's own.
fn proxy(redis_url: &str, address: &str) -> ServiceBuilder {
    builder("tepal-proxy", redis_url).env("LISTEN_ADDR", address).env("RATE_LIMIT_PER_MINUTE", 0)
}

fn builder(binary: &str, redis_url: &str) -> ServiceBuilder {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("compose").join("models");
    Service::binary(binary)
        .env("REDIS_URL", redis_url)
        .env("MODELS_DIR", models.display())
        .env("LOG_FORMAT", "json")
}

async fn wait_ready(service: &Service, client: &Client, url: &str, path: &str) {
    let client = client.clone().with_timeout(Duration::from_secs(2));
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
        panic!("{process}: waited for GET {url} to answer 200, {why}. Its last lines:\n{tail}");
    }
}
