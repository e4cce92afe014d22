//! One proxy, its Redis, and a worker played by the test.

use std::time::Duration;

use serde_json::{Value, json};
use tepal_shared::{
    job::{Claim, JobId, Stream},
    queue::{
        Policy,
        keys::Keys,
        link::{ConnectionSettings, Redis},
        work::{Settled, Settlement, TakeRequest},
    },
};
use tepal_tests::{
    http::Client,
    process::Proxy,
    redis::RedisServer,
    wait::{eventually, poll},
};

use crate::store::Store;

pub(crate) const SOON: Duration = Duration::from_secs(20);
pub(crate) const RESULT: &str = r#"{"prediction":0,"class_name":"setosa","probabilities":[0.98,0.01,0.01]}"#;

/// What a test needs; `client` waits longer than any answer may take.
pub(crate) struct Site {
    pub(crate) redis: RedisServer,
    pub(crate) proxy: Proxy,
    pub(crate) client: Client,
    pub(crate) store: Store,
}

impl Site {
    /// Starts everything; the proxy reaches Redis at `redis_url`, or directly.
    pub(crate) async fn start_at(redis: RedisServer, redis_url: &str, env: &[(&str, &str)]) -> Self {
        let proxy = Proxy::start(redis_url, env).await;
        let partitions = env.iter().find(|(name, _)| *name == "PARTITIONS");
        let partitions = partitions.map_or(1, |(_, value)| value.parse().unwrap());
        let keys = Keys::new("predict_queue");
        let settings = ConnectionSettings::new(&redis.url()).unwrap().for_queue(&keys, partitions);
        let policy = Policy { partitions, ..Policy::default() };
        let store = Store::new(Redis::open(settings).unwrap(), keys, policy);
        let client = proxy.client().with_timeout(Duration::from_secs(70));
        let site = Self { redis, proxy, client, store };
        site.ready().await;
        site
    }

    pub(crate) async fn start(env: &[(&str, &str)]) -> Self {
        let redis = RedisServer::shipped().start().await;
        let url = redis.proxy_url();
        Self::start_at(redis, &url, env).await
    }

    pub(crate) async fn ready(&self) {
        eventually(SOON, "the proxy reaches Redis", || async {
            self.client.get("/readyz").await.status == 200
        })
        .await;
    }

    /// Takes one job as a worker does.
    pub(crate) async fn take(&self) -> Claim {
        let taken = poll(SOON, || async {
            for partition in self.store.queue.partitions() {
                let request = TakeRequest {
                    partition,
                    consumer: "test-0",
                    streams: &Stream::all_of("iris".parse().unwrap()),
                    limit: 1,
                    max_bytes: 1 << 20,
                    due_from: Some(&[const { String::new() }; 3]),
                };
                let granted = self.store.work.take(&request).await.map_err(|error| error.to_string())?;
                if let Some(delivery) = granted.deliveries.into_iter().next() {
                    return Ok(delivery.attempt.claim);
                }
            }
            Err("no job".to_owned())
        });
        taken.await.unwrap()
    }

    pub(crate) async fn settle(&self, claim: &Claim, settlement: Settlement) {
        let outcome = self.store.work.settle(&[(*claim, settlement)]).await.unwrap().remove(0).unwrap();
        assert_eq!(outcome, Settled::Done { repaired: false });
    }

    pub(crate) async fn complete(&self, claim: &Claim) {
        self.settle(claim, Settlement::Complete(RESULT.to_owned())).await;
    }

    /// Ends the next job that waits.
    pub(crate) async fn complete_one(&self) -> JobId {
        let claim = self.take().await;
        self.complete(&claim).await;
        claim.job_id
    }

    pub(crate) async fn submit(&self) -> String {
        self.client.predict(&row()).await
    }

    /// Number of channels with subscribers in Redis.
    pub(crate) fn channels(&self) -> usize {
        self.redis
            .cli(&["PUBSUB", "SHARDCHANNELS", "*"])
            .lines()
            .filter(|line| line.contains(":job:"))
            .count()
    }
}

pub(crate) fn row() -> Value {
    json!([[5.1, 3.5, 1.4, 0.2]])
}
