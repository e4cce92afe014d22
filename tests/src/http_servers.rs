//! HTTP servers that others wrote, behind the whole product: all jobs of a run must complete with the right result, whatever happens to the
//! server and its connections meanwhile.

mod faults;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use self::faults::{Done, Faults};
use crate::fault_proxy::FaultProxy;
use crate::http::Client;
use crate::ports::free_port;
use crate::process::{Proxy, Service, Worker};
use crate::redis::RedisServer;
use crate::wait::eventually;

const MODEL: &str = "squares";
const WITHIN: Duration = Duration::from_secs(300);

/// A server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// `app.py`. It has faults of its own.
    FastApi,
    /// `service.py`. It refuses calls above its concurrency.
    BentoMl,
}

/// What a run showed.
#[derive(Debug)]
pub struct Outcome {
    server: Server,
    version: String,
    jobs: usize,
    done: Done,
    /// Jobs with more than one attempt.
    repeated: usize,
    released: u64,
    took: Duration,
    mistakes: Vec<String>,
}

impl Server {
    /// All servers.
    pub const ALL: [Self; 2] = [Self::FastApi, Self::BentoMl];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::FastApi => "fastapi",
            Self::BentoMl => "bentoml",
        }
    }

    fn probe(self) -> &'static str {
        match self {
            Self::FastApi => "/health",
            Self::BentoMl => "/readyz",
        }
    }

    /// Whether a failure of its own uses an attempt of this job.
    fn fails(self, number: usize) -> bool {
        self == Self::FastApi && number % 20 == 11
    }

    fn start(self, venv: &Path, state: &Path, port: u16) -> Service {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("servers/http");
        let app = match self {
            Self::FastApi => "app:app",
            Self::BentoMl => "service:app",
        };
        Service::program("uvicorn", &venv.join("bin/uvicorn"))
            .env("STATE", state.display())
            .env("BENTOML_HOME", state.display())
            .env("BENTOML_DO_NOT_TRACK", "True")
            .arg("--app-dir")
            .arg(&sources.display().to_string())
            .arg("--port")
            .arg(&port.to_string())
            .arg(app)
            .start()
    }
}

/// Runs so many jobs through the server, which `prepare.sh` has installed into this folder.
pub async fn run(server: Server, folder: &Path, jobs: usize) -> Outcome {
    let venv = folder.join("venv");
    let state = tempfile::tempdir().expect("a temporary directory");
    let port = free_port();
    let process = server.start(&venv, state.path(), port);
    answers(server, port).await;
    let network = FaultProxy::start(&format!("127.0.0.1:{port}")).await;
    let models = models(server, &network.addr());
    let redis = RedisServer::shipped().start().await;
    let env = [("MODELS_DIR", models.path().to_str().expect("UTF-8")), ("MODEL_NAME", MODEL)];
    let proxy = Proxy::start(&redis.proxy_url(), &env).await;
    let worker = Worker::start(&redis.worker_url(), &env).await;
    let began = Instant::now();
    let ids = submit(&proxy.client(), jobs).await;
    let faults = Faults { server: &process, network: &network, ready: async || answers(server, port).await };
    let done = faults.run(async || finished(&proxy.client(), &ids).await, jobs).await;
    let ended = ended(&proxy.client(), &ids).await;
    let took = began.elapsed();
    let mistakes =
        ended.iter().enumerate().filter_map(|(number, job)| mistake(server, number, job)).collect();
    let repeated = ended.iter().filter(|job| job["attempts"] != 1).count();
    let released =
        worker.logs().lines().iter().filter(|line| line.contains("attempt_released")).count() as u64;
    process.kill9();
    Outcome { server, version: version(server, &venv), jobs, done, repeated, released, took, mistakes }
}

/// A repository with the model.
fn models(server: Server, addr: &str) -> tempfile::TempDir {
    let models = tempfile::tempdir().expect("a temporary directory");
    let folder = models.path().join(MODEL);
    std::fs::create_dir(&folder).expect("the directory is ours");
    let text = format!(
        "sample = {{ n = 0 }}\n[serving]\ninference_timeout_ms = 5000\n[http]\nurl = \"http://{addr}/predict\"\nprobe = \"{}\"\n",
        server.probe()
    );
    std::fs::write(folder.join("model.toml"), text).expect("the directory is ours");
    models
}

async fn answers(server: Server, port: u16) {
    let client = Client::new(&format!("http://127.0.0.1:{port}"));
    let ready = async || match client.try_get(server.probe()).await {
        Ok(answer) if answer.status == 200 => Ok(()),
        other => Err(format!("{other:?}")),
    };
    eventually(WITHIN, "the server to start", ready).await;
}

async fn submit(client: &Client, jobs: usize) -> Vec<String> {
    let numbers: Vec<usize> = (0..jobs).collect();
    let mut ids = Vec::new();
    for some in numbers.chunks(500) {
        let batch: Vec<_> = some.iter().map(|number| json!({"data": {"n": number}})).collect();
        let answer = client.post_json("/predict/batch", &Value::from(batch)).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        let answer = answer.json();
        let jobs = answer["jobs"].as_array().cloned().unwrap_or_default();
        ids.extend(jobs.iter().filter_map(|job| job["job_id"].as_str()).map(str::to_owned));
    }
    assert_eq!(ids.len(), jobs, "all jobs are accepted");
    ids
}

async fn read(client: &Client, ids: &[String]) -> Vec<Value> {
    let mut jobs = Vec::new();
    for some in ids.chunks(500) {
        let answer = client.post_json("/jobs/lookup", &json!({"job_ids": some})).await.json();
        jobs.extend(answer["jobs"].as_array().cloned().unwrap_or_default());
    }
    jobs
}

async fn finished(client: &Client, ids: &[String]) -> usize {
    read(client, ids).await.iter().filter(|job| crate::http::is_terminal(job)).count()
}

async fn ended(client: &Client, ids: &[String]) -> Vec<Value> {
    eventually(WITHIN, "all jobs to end", async || {
        let jobs = read(client, ids).await;
        let ended = jobs.iter().filter(|job| crate::http::is_terminal(job)).count();
        if ended == ids.len() { Ok(jobs) } else { Err(ended) }
    })
    .await
}

/// What is wrong with the end of the job.
fn mistake(server: Server, number: usize, job: &Value) -> Option<String> {
    let expected = json!({"n": number, "square": number * number});
    let most = if server.fails(number) { 2 } else { 1 };
    let is_right =
        job["result"] == expected && job["attempts"].as_u64().is_some_and(|attempts| attempts <= most);
    (!is_right).then(|| format!("{number}: {job}"))
}

fn version(server: Server, venv: &Path) -> String {
    let code = format!("import importlib.metadata as m; print(m.version('{}'))", server.name());
    let python: PathBuf = venv.join("bin/python");
    let output =
        std::process::Command::new(python).args(["-c", &code]).output().expect("the interpreter of the venv");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

impl Outcome {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.mistakes.is_empty()
    }

    /// The first things that are wrong.
    #[must_use]
    pub fn mistakes(&self) -> &[String] {
        &self.mistakes[..self.mistakes.len().min(5)]
    }

    /// The head of the table.
    pub const HEAD: &str = "| server | jobs | restarts | cuts | slow | released | repeated | s | wrong |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |";

    /// A row of the table.
    #[must_use]
    pub fn row(&self) -> String {
        let Self { server, version, jobs, done, repeated, released, took, mistakes } = self;
        let Done { restarts, cuts, slow } = done;
        format!(
            "| {} {version} | {jobs} | {restarts} | {cuts} | {slow} | {released} | {repeated} | {} | {} |",
            server.name(),
            took.as_secs(),
            mistakes.len()
        )
    }
}
