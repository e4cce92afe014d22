//! Addresses that lead to a Redis that can never serve the queue: refused, not ready, and named.

use serde_json::{Value, json};
use tepal_shared::queue::keys::Keys;
use tepal_tests::{
    process::{Proxy, Service},
    redis::{RedisCluster, RedisServer, SentinelGroup},
    wait::eventually,
};

use crate::{
    doctor::{doctor, line},
    expect::{Problem, problem},
    gateway::{FLOWER, Gateway, JSON, SOON},
};

const DETAIL: &str =
    "The address of the job store leads to a server that cannot hold jobs; the operator must change it";

fn wrong_topology() -> Problem {
    problem(503, "redis_wrong_topology", "Wrong kind of job store").header("retry-after", "5")
}

/// A node of a cluster that owns these slots.
async fn node(slots: &[&str]) -> RedisServer {
    let node = RedisServer::shipped().cluster_node().start().await;
    if !slots.is_empty() {
        node.cli(&[&["CLUSTER", "ADDSLOTSRANGE"], slots].concat());
    }
    node
}

/// Everything that asks a proxy at this address is refused, for this reason.
async fn is_refused(url: &str, settings: &[(&str, &str)], reason: &str) {
    let proxy = Proxy::start(url, settings).await;
    let line_of_log = proxy.wait_for_log("redis_wrong_topology", SOON).await;
    assert!(line_of_log.contains(reason), "{line_of_log}");
    let client = proxy.client();
    let headers = [("x-request-id", crate::expect::REQUEST_ID)];
    for path in ["/readyz", "/jobs", "/job/01a213bc-5852-7739-9bfa-645255d4b400", "/metadata"] {
        let answer = client.request(tepal_tests::http::Method::GET, path, &headers, String::new()).await;
        wrong_topology().assert(&answer, path, DETAIL);
    }
    let headers = [headers[0], JSON];
    let answer =
        client.request(tepal_tests::http::Method::POST, "/predict", &headers, FLOWER.to_owned()).await;
    wrong_topology().assert(&answer, "/predict", DETAIL);
    let health = client.get("/health").await;
    assert_eq!(health.status, 503);
    assert_eq!(health.json()["components"], json!({"redis": "wrong_topology"}));
    // It has tried again in the meantime, and said nothing more.
    assert_eq!(said(&proxy), 1);

    let (is_well, text) = doctor(url, settings).await;
    assert!(!is_well);
    assert!(line(&text, "Redis").contains(reason), "{text}");
}

fn said(proxy: &Service) -> usize {
    proxy.logs().lines().iter().filter(|line| line.contains(r#""action":"redis_wrong_topology""#)).count()
}

#[tokio::test]
async fn a_sentinel_is_refused() {
    let sentinel = RedisServer::options().sentinel().start().await;
    let reason = "the address leads to a Redis Sentinel, which stores no jobs";
    is_refused(&sentinel.proxy_url(), &[], reason).await;
}

#[tokio::test]
async fn a_url_of_a_single_server_that_leads_to_a_cluster_is_refused() {
    let node = node(&["0", "16383"]).await;
    is_refused(&node.proxy_url(), &[], "the address leads to a node of a Redis Cluster").await;
}

#[tokio::test]
async fn a_url_of_a_cluster_that_leads_to_a_single_server_is_refused() {
    let redis = RedisServer::shipped().start().await;
    let url = redis.proxy_url().replace("redis://", "redis+cluster://");
    is_refused(&url, &[], "the server at the address is not in cluster mode").await;
}

#[tokio::test]
async fn a_cluster_without_a_node_for_the_queue_is_refused() {
    let node = node(&["5000", "16383"]).await;
    let url = node.proxy_url().replace("redis://", "redis+cluster://");
    let reason = "no node of the Redis Cluster owns slot ";
    let settings = [("PARTITIONS", "1")];
    is_refused(&url, &settings, reason).await;
}

#[tokio::test]
async fn sentinels_that_cannot_name_a_primary_are_named() {
    let redis = RedisServer::shipped().start().await;
    let url = |server: &RedisServer, name: &str| {
        let url = redis.proxy_url_at(&server.addr()).replace("redis://", "redis+sentinel://");
        format!("{url}/{name}")
    };
    let none = "REDIS_URL is that of Sentinels, but the server at the address is none";
    is_refused(&url(&redis, "tepal"), &[], none).await;
    let sentinel = RedisServer::options().sentinel().password("sesame").start().await;
    let url = url(&sentinel, "other");
    is_refused(&url, &[], "the Sentinels refuse the credentials").await;
    let password = [("SENTINEL_PASSWORD", "sesame")];
    is_refused(&url, &password, "the Sentinels watch no group called `other`").await;
}

/// The value of a field of an answer.
fn field<'a>(body: &'a Value, name: &str) -> &'a str {
    body[name].as_str().unwrap_or_else(|| panic!("no {name} in {body}"))
}

#[tokio::test]
async fn a_group_of_sentinels_is_followed() {
    let group = SentinelGroup::start(&RedisServer::shipped(), 1).await;
    let proxy = Proxy::start(&group.url_with(RedisServer::proxy_url_at), &[]).await;
    let client = proxy.client();
    let is_ready = async || client.get("/readyz").await.status == 200;
    eventually(SOON, "the proxy", is_ready).await;
    let submit = async || client.post_raw("/predict", FLOWER).await;
    let job = submit().await.json();
    let is_copied = async || group.servers[1].cli(&["DBSIZE"]) == group.servers[0].cli(&["DBSIZE"]);
    eventually(SOON, "the replica", is_copied).await;

    group.primary().kill9();
    eventually(SOON, "a job that is accepted", async || submit().await.status == 202).await;
    let read = client.get(&format!("/job/{}", field(&job, "job_id"))).await;
    assert_eq!(read.json()["status"], "pending", "nothing is lost");
}

#[tokio::test]
async fn a_cluster_goes_on_while_one_of_its_primaries_is_down() {
    let cluster = RedisCluster::start(&RedisServer::shipped(), 3, 0).await;
    let url = cluster.url_with(RedisServer::proxy_url_at);
    let settings = [("PARTITIONS", "6"), ("RATE_LIMIT_MAX", "0")];
    let proxy = Proxy::start(&url, &settings).await;
    let client = proxy.client();
    eventually(SOON, "the proxy", async || client.get("/readyz").await.status == 200).await;
    let submit = async || client.post_raw("/predict", FLOWER).await;
    let mut jobs = Vec::new();
    for _ in 0..12 {
        let answer = submit().await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        jobs.push(field(&answer.json(), "job_id").to_owned());
    }
    let look_up = async || client.post_json("/jobs/lookup", &json!({ "job_ids": jobs })).await.json();
    assert_eq!(look_up().await["jobs"].as_array().unwrap().len(), 12);
    assert_eq!(client.get("/jobs").await.json()["jobs"].as_array().unwrap().len(), 12);

    let outstanding = async || client.get("/metrics").await.metric("tepal_jobs_outstanding");
    eventually(SOON, "all jobs to be outstanding", async || outstanding().await == 12.0).await;
    let (keys, killed) = (Keys::in_cluster("predict_queue"), &cluster.primaries[0]);
    killed.kill9();
    eventually(SOON, "the warning", async || client.get("/health").await.text().contains("partitions_down"))
        .await;
    assert_eq!(client.get("/readyz").await.status, 200);
    for _ in 0..12 {
        let answer = submit().await;
        assert_eq!(answer.status, 202, "{}", answer.text());
    }
    // An autoscaler must not take the partitions that cannot be read for empty.
    eventually(SOON, "all jobs to be outstanding", async || outstanding().await == 24.0).await;
    let partial = look_up().await;
    let not_read = partial["not_read"].as_array().unwrap().len();
    assert!(not_read > 0, "{partial}");
    assert_eq!(partial["jobs"].as_array().unwrap().len() + not_read, 12);
    assert_eq!(client.get("/jobs").await.status, 503, "a listing needs all partitions");
    let is_lost = |key: &str| {
        cluster.primaries[1]
            .try_cli(&["EXISTS", key])
            .is_err_and(|error| error.to_string().contains(&killed.port().to_string()))
    };
    assert!((0..6).any(|partition| is_lost(&keys.log(partition))), "the killed one owned a partition");
}

#[tokio::test]
async fn workers_with_fewer_partitions_are_a_warning() {
    let gateway = Gateway::on(RedisServer::shipped().start().await, &[("PARTITIONS", "4")]).await;
    gateway.heartbeat("w1", "onnx", true, None);
    let key = gateway.store.queue.keys().workers();
    let record = gateway.redis.cli(&["HGET", &key, "w1"]);
    let record = record.replace(r#""partitions":0"#, r#""partitions":2"#);
    gateway.redis.cli(&["HSET", &key, "w1", &record]);
    let expected = r#"{"status":"healthy","components":{"redis":"ok","onnx":"ok"},"warnings":[{"code":"partitions_differ","detail":"This proxy has PARTITIONS=4, but live workers have 2: only the other workers run jobs of all partitions"}]}"#;
    gateway.health_is(200, expected).await;
}
