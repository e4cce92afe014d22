//! Addresses that lead to a Redis that can never serve the queue: refused, not ready, and named.

use serde_json::json;
use tepal_tests::{
    process::{Proxy, Service},
    redis::RedisServer,
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

/// Two nodes of a cluster that know each other's slots.
async fn two_nodes(first: &[&str], second: &[&str]) -> [RedisServer; 2] {
    let nodes = [node(first).await, node(second).await];
    let bus = nodes[1].cli(&["CONFIG", "GET", "cluster-port"]);
    let (port, bus) = (nodes[1].port().to_string(), bus.lines().nth(1).unwrap().to_owned());
    nodes[0].cli(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
    let is_known = async || {
        let of = |node: &RedisServer| node.cli(&["CLUSTER", "INFO"]);
        nodes
            .iter()
            .all(|node| of(node).contains("cluster_slots_ok:16384") && of(node).contains("cluster_state:ok"))
    };
    eventually(SOON, "the nodes to know each other", is_known).await;
    nodes
}

/// Everything that asks a proxy at this address is refused, for this reason.
async fn is_refused(redis: &RedisServer, settings: &[(&str, &str)], reason: &str) {
    let proxy = Proxy::start(&redis.proxy_url(), settings).await;
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

    let (is_well, text) = doctor(&redis.proxy_url(), settings).await;
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
    is_refused(&sentinel, &[], reason).await;
}

#[tokio::test]
async fn a_cluster_node_that_does_not_own_all_keys_is_refused() {
    // The slots of partition 0 and of the workers' registry: 12034 and 6807.
    let nodes = two_nodes(&["0", "8191"], &["8192", "16383"]).await;
    is_refused(&nodes[0], &[], "a Redis Cluster node that does not own slot 12034").await;
    is_refused(&nodes[1], &[], "a Redis Cluster node that does not own slot 6807").await;
}

#[tokio::test]
async fn a_cluster_and_several_partitions_are_refused() {
    let node = node(&["0", "16383"]).await;
    let is_ok = async || node.cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok");
    eventually(SOON, "the node to own its slots", is_ok).await;
    let reason = "the address leads to a Redis Cluster, which can serve one partition only";
    is_refused(&node, &[("PARTITIONS", "2")], reason).await;
}

#[tokio::test]
async fn a_cluster_of_one_node_serves_one_partition_until_its_slots_move_away() {
    let nodes = two_nodes(&["0", "16383"], &[]).await;
    let [owner, other] = nodes;
    let (slot, id) = ("12034", other.cli(&["CLUSTER", "MYID"]));
    let gateway = Gateway::on(owner, &[]).await;
    let job = gateway.submit().await;
    assert_eq!(gateway.get(&format!("/job/{job}")).await.json()["status"], "pending");

    // As a migration of the slot ends, without its keys.
    other.cli(&["CLUSTER", "SETSLOT", slot, "NODE", &id]);
    let has_moved = async || {
        // The proxy may write a key before the slot is given away, and Redis refuses then.
        for key in gateway.redis.cli(&["CLUSTER", "GETKEYSINSLOT", slot, "100"]).lines() {
            gateway.redis.cli(&["DEL", key]);
        }
        gateway.redis.try_cli(&["CLUSTER", "SETSLOT", slot, "NODE", &id]).is_ok()
    };
    eventually(SOON, "the slot to move", has_moved).await;

    let answer = gateway.predict(FLOWER).await;
    wrong_topology().assert(&answer, "/predict", DETAIL);
    let is_ready = async || gateway.get("/readyz").await.status != 200;
    eventually(SOON, "the proxy not to be ready", is_ready).await;
}
