//! A large job that does not end until it is released, as if it waited behind others. The harness holds its entry as a
//! consumer of its own. Create it before any worker starts.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::interval;

use crate::http::Client;
use crate::redis::RedisServer;

const STREAM: &str = "{predict_queue:0}:stream:iris:low";
const GROUP: &str = "workers";
const CONSUMER: &str = "hostile";
/// Much shorter than the lease of 10 s, also on a busy machine.
const RENEW_EVERY: Duration = Duration::from_secs(1);

/// The job.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) id: String,
    entry: String,
    renewing: JoinHandle<()>,
}

impl Held {
    /// Submits `body` and takes its entry.
    pub(super) async fn submit(redis: &RedisServer, client: &Client, body: String) -> Self {
        redis.cli(&["XGROUP", "CREATE", STREAM, GROUP, "0", "MKSTREAM"]);
        let answer = client.post_raw("/predict", body).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        let id = answer.json()["job_id"].as_str().unwrap_or_default().to_owned();
        redis.cli(&["XREADGROUP", "GROUP", GROUP, CONSUMER, "COUNT", "1", "STREAMS", STREAM, ">"]);
        let pending = redis.cli(&["XPENDING", STREAM, GROUP, "-", "+", "1"]);
        let entry = pending.lines().next().expect("the entry is pending").to_owned();
        let renewing = tokio::spawn(renew(redis.connection().await, entry.clone()));
        Self { id, entry, renewing }
    }

    /// Makes the job's entry due at once.
    pub(super) fn let_go(&self, redis: &RedisServer) {
        self.renewing.abort();
        redis.cli(&["XCLAIM", STREAM, GROUP, CONSUMER, "0", &self.entry, "IDLE", "10000", "JUSTID"]);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}

async fn renew(mut connection: redis::aio::MultiplexedConnection, entry: String) {
    let mut ticks = interval(RENEW_EVERY);
    loop {
        ticks.tick().await;
        let mut claim = redis::cmd("XCLAIM");
        claim.arg(&[STREAM, GROUP, CONSUMER, "0", &entry, "JUSTID"]);
        let renewed = claim.exec_async(&mut connection).await;
        renewed.unwrap_or_else(|error| panic!("a job that is held cannot be renewed: {error}"));
    }
}
