//! A full disk, simulated by a limit on the size of files: Redis acknowledges nothing that it cannot write.

use serde_json::json;
use tepal_tests::process::{Proxy, Worker};
use tepal_tests::redis::{Fsync, RedisOptions, RedisServer};
use tepal_tests::wait::eventually;

use crate::acknowledged::{Acknowledged, Clients};
use crate::{SOON, row};

/// Room for some more jobs.
const ROOM: u64 = 20_000;

/// Redis as shipped, which gets an error at the limit, as on a full disk, and not a signal.
fn limited() -> RedisOptions {
    RedisServer::shipped().through(&["env", "--ignore-signal=XFSZ"])
}

fn fill_disk(redis: &RedisServer) {
    let size = redis.aof_file().metadata().unwrap().len();
    redis.limit_files(Some(size + ROOM));
}

#[tokio::test]
async fn redis_exits_when_its_disk_is_full_and_no_acknowledged_job_is_lost() {
    let redis = limited().start().await;
    let proxy = Proxy::start(&redis.proxy_url(), &[]).await;
    let _worker = Worker::start(&redis.worker_url(), &[]).await;
    let client = proxy.client();
    let clients = Clients::start(&client, 4);
    clients.accepted(5).await;

    fill_disk(&redis);
    let status = redis.wait_exit(SOON).await;
    assert_eq!(status.code(), Some(1), "{}", redis.log());
    assert!(redis.log().contains("Can't recover from AOF write error"), "{}", redis.log());
    let down = async || client.get("/health").await.json()["components"] == json!({"redis": "down"});
    eventually(SOON, "Redis to be missed", down).await;
    let Acknowledged { accepted, ended, refused } = clients.stop().await;
    let codes = ["service_unavailable", "outcome_unknown"];
    assert!(
        refused.iter().all(|(status, code)| *status == 503 && codes.contains(&code.as_str())),
        "{refused:?}"
    );

    // The new process has no limit, so there is room again.
    redis.restart().await;
    Acknowledged { accepted, ended, refused }.assert_kept(&client).await;
    let id = client.predict(&row()).await;
    client.finished(&id, SOON).await;
}

#[tokio::test]
async fn with_everysec_a_full_disk_makes_redis_read_only_until_there_is_room() {
    let redis = limited().aof(Fsync::EverySec).start().await;
    let proxy = Proxy::start(&redis.proxy_url(), &[]).await;
    let client = proxy.client();
    let clients = Clients::start(&client, 1);
    clients.accepted(5).await;

    fill_disk(&redis);
    let read_only = async || client.get("/health").await.json()["components"]["redis"] == "read_only";
    eventually(SOON, "Redis to be read-only", read_only).await;
    let refused = client.try_predict(&row(), &[]).await.unwrap();
    assert_eq!((refused.status, &refused.json()["code"]), (503, &json!("redis_cannot_persist")));
    let acknowledged = clients.stop().await;

    redis.limit_files(None);
    let accepts = async || client.try_predict(&row(), &[]).await.unwrap().status == 202;
    eventually(SOON, "jobs to be accepted again", accepts).await;
    redis.stop().await;
    redis.restart().await;
    let _worker = Worker::start(&redis.worker_url(), &[]).await;
    acknowledged.assert_kept(&client).await;
}
