//! A real Prometheus of a test's own.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tepal_tests::http::Client;
use tepal_tests::ports::free_port;
use tepal_tests::process::Service;
use tepal_tests::wait::eventually;

use crate::root;

/// A running Prometheus that scrapes once a second.
pub(crate) struct Prometheus {
    client: Client,
    _service: Service,
    _dir: TempDir,
}

impl Prometheus {
    /// Watches `targets`, (job, `host:port`), with the rules and alerts of compose/.
    pub(crate) async fn start(targets: &[(&str, String)]) -> Self {
        let dir = tempfile::Builder::new().prefix("tepal-prometheus-").tempdir().unwrap();
        let config = dir.path().join("prometheus.yml");
        std::fs::write(&config, configuration(targets)).unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let service = Service::program("prometheus", Path::new("prometheus"))
            .arg(&format!("--config.file={}", config.display()))
            .arg(&format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(&format!("--web.listen-address={address}"))
            .start();
        let client = Client::new(&format!("http://{address}"));
        eventually(Duration::from_secs(30), "Prometheus to be ready", async || {
            let answer = client.try_get("/-/ready").await;
            answer.map_err(|error| error.to_string()).and_then(|answer| match answer.status {
                200 => Ok(()),
                status => Err(format!("status {status}")),
            })
        })
        .await;
        Self { client, _service: service, _dir: dir }
    }

    /// The samples of an instant query.
    pub(crate) async fn query(&self, expr: &str) -> Result<Vec<Value>, String> {
        let path = format!("/api/v1/query?query={}", encoded(expr));
        let answer = self.client.try_get(&path).await.map_err(|error| error.to_string())?.json();
        match (answer["status"].as_str(), &answer["data"]["result"]) {
            (Some("success"), Value::Array(samples)) => Ok(samples.clone()),
            _ => Err(format!("{expr}: {answer}")),
        }
    }

    /// The results of the targets' last scrapes: `health lastError` for each.
    pub(crate) async fn targets(&self) -> Vec<String> {
        let answer = self.client.get("/api/v1/targets").await.json();
        let targets = answer["data"]["activeTargets"].as_array().cloned().unwrap_or_default();
        targets.iter().map(|target| format!("{} {}", target["health"], target["lastError"])).collect()
    }
}

fn configuration(targets: &[(&str, String)]) -> String {
    let compose = root().join("compose");
    let mut config = format!(
        "global: {{ scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }}\n\
         rule_files: [{0}/rules.yml, {0}/alerts.yml]\nscrape_configs:\n",
        compose.display()
    );
    for job in ["tepal-proxy", "tepal-worker"] {
        let of_job = targets.iter().filter(|(name, _)| *name == job).map(|(_, address)| address.as_str());
        let list = of_job.collect::<Vec<_>>().join(", ");
        config += &format!("  - {{ job_name: {job}, static_configs: [{{ targets: [{list}] }}] }}\n");
    }
    config
}

/// For a URL's query.
fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}
