//! Opaque models behind an HTTP endpoint: what goes in and comes out, who is to blame for a failure, outages.

mod answers;
mod arrays;
mod outage;
mod secured;
mod tools;
mod verdicts;

use std::net::SocketAddr;

use serde_json::Value;
use tempfile::TempDir;
use tepal_shared::{
    content::Content,
    job::{Job, JobId, JobResult, JobStatus, NewJob},
};
use tepal_tests::{http_server::HttpServer, process::Worker, wait::eventually};

use crate::{
    queue::{Queue, SOON},
    settings::Settings,
};

/// The model of these tests.
const MODEL: &str = "m";

/// A repository with the model, and a queue of its jobs.
struct Site {
    queue: Queue,
    models: TempDir,
}

impl Site {
    /// The endpoint is at this address. `more`: further lines of model.toml, before and in the table `[http]`.
    async fn at(addr: SocketAddr, (before, in_table): (&str, &str)) -> Self {
        Self::of(&format!("{before}\n[http]\nurl = \"http://{addr}/run?a=b\"\n{in_table}\n")).await
    }

    /// With this model.toml.
    async fn of(description: &str) -> Self {
        let models = tempfile::tempdir().unwrap();
        std::fs::create_dir(models.path().join(MODEL)).unwrap();
        std::fs::write(models.path().join(MODEL).join("model.toml"), description).unwrap();
        Self { queue: Queue::start().await.of(MODEL), models }
    }

    /// A worker that serves the model.
    async fn worker(&self, settings: Settings) -> Worker {
        self.queue.worker(self.settings().and(settings)).await
    }

    fn settings(&self) -> Settings {
        Settings::default().with_model(self.models.path(), MODEL).with("RECLAIM_INTERVAL_MS", 20)
    }

    /// Submits JSON text.
    async fn submit(&self, text: &str) -> JobId {
        self.submit_content(Content::Json(text)).await
    }

    async fn submit_content(&self, content: Content<'_>) -> JobId {
        self.queue.submit_job(0, new_job(content)).await
    }

    /// Waits until the job has this status and has released its worker so often.
    async fn is_released(&self, id: JobId, times: u32) {
        let released = async || {
            let job = self.queue.job(id).await;
            let released = self.queue.times_released(id);
            if job.status == JobStatus::Pending && job.attempts == 0 && released >= times {
                Ok(())
            } else {
                Err(format!("{released} {job:?}"))
            }
        };
        eventually(SOON, "the job to be released", released).await;
    }
}

fn new_job(content: Content<'_>) -> NewJob {
    NewJob::new(MODEL.parse().unwrap(), content.stored())
}

/// An endpoint, and a site that calls it.
async fn site(more: (&str, &str)) -> (HttpServer, Site) {
    let server = HttpServer::start().await;
    let site = Site::at(server.addr(), more).await;
    (server, site)
}

/// The result of a completed job as the text that it is.
fn text(job: &Job) -> &str {
    job.result.as_ref().and_then(JobResult::inline).unwrap()
}

fn json(job: &Job) -> Value {
    serde_json::from_str(text(job)).unwrap()
}
