//! What a caller may keep in Redis: large jobs are refused beyond it, for as long as the earlier ones take room.

use std::collections::BTreeMap;

use serde_json::json;
use tepal_shared::queue::work::Settlement;
use tepal_tests::{
    http::{Answer, Method},
    process::Proxy,
    redis::RedisServer,
    wait::eventually,
};

use crate::{
    expect::problem,
    gateway::{FLOWER, Gateway, JSON, SETOSA, SOON, accepted},
    keys::Keys,
};

/// Room for two large jobs.
const TWO: (&str, &str) = ("OWNER_MAX_BYTES", "40000");
const BEHIND_A_BALANCER: (&str, &str) = ("TRUSTED_PROXIES", "127.0.0.0/8");
const DETAIL: &str =
    "Your large inputs and results fill your storage quota; wait until a job ends or a result expires";

/// Bytes of its input: the number of the datatype, two lengths, and 4,000 floats.
const STORED: u64 = 16_004;

/// A body of 1,000 rows.
fn large() -> String {
    format!(r#"{{"data": [{}]}}"#, vec!["[5.1,3.5,1.4,0.2]"; 1000].join(","))
}

async fn predict(gateway: &Gateway, headers: &[(&str, &str)]) -> Answer {
    gateway.send(Method::POST, "/predict", &[&[JSON], headers].concat(), &large()).await
}

async fn predict_from(gateway: &Gateway, address: &str) -> Answer {
    predict(gateway, &[("x-forwarded-for", address)]).await
}

/// What each payer keeps.
fn sums(gateway: &Gateway) -> BTreeMap<String, u64> {
    let text = gateway.redis.cli(&["HGETALL", &gateway.store.queue.keys().quota(0)[1]]);
    let lines: Vec<_> = text.lines().collect();
    lines.chunks_exact(2).map(|pair| (pair[0].to_owned(), pair[1].parse().unwrap())).collect()
}

#[tokio::test]
async fn an_address_that_keeps_too_much_is_refused_and_no_other() {
    let gateway = Gateway::with(&[TWO, BEHIND_A_BALANCER]).await;
    for _ in 0..2 {
        accepted(&predict_from(&gateway, "192.0.2.1").await);
    }
    let before = gateway.keys();

    let refused = problem(429, "storage_quota_exceeded", "Storage quota exceeded").header("retry-after", "5");
    refused.assert(&predict_from(&gateway, "192.0.2.1").await, "/predict", DETAIL);
    let key = [("x-forwarded-for", "192.0.2.1"), ("idempotency-key", "order-1")];
    refused.assert(&predict(&gateway, &key).await, "/predict", DETAIL);

    assert_eq!(gateway.keys(), before);
    let small = gateway.send(Method::POST, "/predict", &[JSON, key[0]], FLOWER).await;
    accepted(&small);
    accepted(&predict_from(&gateway, "192.0.2.2").await);
    let page = gateway.get("/metrics").await.text();
    let counted = "tepal_jobs_refused_total{model=\"iris\",reason=\"storage_quota_exceeded\"} 2\n";
    assert!(page.contains(counted), "{page}");

    let attempt = gateway.take(0).await.remove(0);
    gateway.settle(&attempt, Settlement::Complete(SETOSA.to_owned())).await;
    accepted(&predict(&gateway, &key).await);
    // It is accepted already, and there is no room for another.
    accepted(&predict(&gateway, &key).await);
}

#[tokio::test]
async fn all_proxies_charge_an_address_alike_and_none_stores_it() {
    let gateway = Gateway::with(&[TWO, BEHIND_A_BALANCER]).await;
    let other = Proxy::start(&gateway.redis.proxy_url(), &[TWO, BEHIND_A_BALANCER]).await;
    other.ready().await;
    for (address, client) in [
        ("2001:db8:0:1::1", gateway.proxy.client()),
        ("2001:db8:0:1:ffff::2", other.client()),
        ("192.0.2.1", other.client()),
    ] {
        let headers = [JSON, ("x-forwarded-for", address)];
        accepted_by(&client.request(Method::POST, "/predict", &headers, large()).await);
    }

    let sums = sums(&gateway);

    assert_eq!(sums.values().sum::<u64>(), 3 * STORED, "{sums:?}");
    assert_eq!(sums.len(), 2, "{sums:?}");
    for payer in sums.keys() {
        assert!(payer.starts_with("a:") && payer.len() == 18, "{payer}");
    }
}

#[track_caller]
fn accepted_by(answer: &Answer) {
    assert_eq!(answer.status, 202, "{}", answer.text());
}

#[tokio::test]
async fn keys_of_an_owner_pay_together_also_for_what_runs_again() {
    let keys = Keys::with("");
    let holders = ["--owner ann", "--owner ann", "--owner bob"].map(|flags| keys.add(flags));
    let gateway = keys.gateway(&[TWO]).await;
    let mut ids = Vec::new();
    for holder in &holders[..2] {
        ids.push(accepted(&predict(&gateway, &[("x-api-key", holder)]).await));
    }
    assert_eq!(sums(&gateway), [("o:ann".to_owned(), 2 * STORED)].into());
    assert_eq!(predict(&gateway, &[("x-api-key", &holders[0])]).await.status, 429);
    accepted(&predict(&gateway, &[("x-api-key", &holders[2])]).await);

    let path = format!("/job/{}", ids[0]);
    assert_eq!(gateway.as_key(&holders[0], Method::DELETE, &path, "").await.status, 200);
    let path = format!("{path}/retry");
    let refused = gateway.as_key(&holders[0], Method::POST, &path, "").await;
    let expected =
        problem(429, "storage_quota_exceeded", "Storage quota exceeded").header("retry-after", "5");
    expected.assert(&refused, &path, DETAIL);
}

#[tokio::test]
async fn who_keeps_only_what_has_ended_may_come_back_when_that_expires() {
    let gateway = Gateway::with(&[TWO, ("FAILED_INPUT_TTL_SECONDS", "3000")]).await;
    for _ in 0..2 {
        let id = accepted(&predict(&gateway, &[]).await);
        gateway.delete(&format!("/job/{id}")).await;
    }
    let answer = predict(&gateway, &[]).await;
    let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!(answer.status == 429 && (2940..=3000).contains(&seconds), "{seconds}");
}

#[tokio::test]
async fn each_job_of_a_batch_has_its_own_outcome() {
    let gateway = Gateway::with(&[TWO]).await;
    let large = large();
    let body = format!("[{large}, {FLOWER}, {large}, {large}]");

    let answer = gateway.send(Method::POST, "/predict/batch", &[JSON], &body).await;

    assert_eq!((answer.status, answer.header("retry-after")), (207, Some("5")));
    let answer = answer.json();
    assert_eq!((&answer["accepted"], &answer["refused"]), (&json!(3), &json!(1)));
    assert_eq!(answer["jobs"][3]["problem"]["code"], "storage_quota_exceeded");
    assert_eq!(gateway.log_length(), 3);
}

#[tokio::test]
async fn without_a_setting_a_caller_may_keep_a_quarter_of_the_memory() {
    let redis = RedisServer::shipped().start().await;
    redis.cli(&["CONFIG", "SET", "maxmemory", "4mb"]);
    // A proxy that does not know the limit yet rejects no job.
    let gateway = Gateway::on(redis, &[("PARTITIONS", "10"), ("RATE_LIMIT_PER_MINUTE", "1000000")]).await;
    let refused = async || {
        let answer = predict(&gateway, &[]).await;
        (answer.status == 429).then(|| answer.json()["code"].clone())
    };
    assert_eq!(eventually(SOON, "a refusal", refused).await, "storage_quota_exceeded");
    let partitions = (0..10).map(|partition| gateway.store.queue.keys().quota(partition)[1].clone());
    let most = partitions.filter_map(|key| {
        let sums = gateway.redis.cli(&["HVALS", &key]);
        sums.lines().next().and_then(|sum| sum.parse::<u64>().ok())
    });
    let most = most.max().unwrap();
    assert!((18_001..=100 << 10).contains(&most), "{most} bytes in a partition");
}

#[tokio::test]
async fn nobody_pays_where_there_is_no_limit() {
    const LIMITED: (&str, &str) = ("RATE_LIMIT_PER_MINUTE", "1000");
    for (settings, maxmemory) in
        [(&[("OWNER_MAX_BYTES", "0"), LIMITED][..], "40mb"), (&[LIMITED], "0"), (&[], "40mb")]
    {
        let redis = RedisServer::shipped().start().await;
        redis.cli(&["CONFIG", "SET", "maxmemory", maxmemory]);
        let gateway = Gateway::on(redis, settings).await;
        let is_off = async || {
            let answer = predict(&gateway, &[]).await;
            accepted_by(&answer);
            let id = answer.json()["job_id"].as_str().unwrap().parse().unwrap();
            !gateway.hash(id).contains_key("charged")
        };
        eventually(SOON, "a job that nobody pays for", is_off).await;
    }
}
