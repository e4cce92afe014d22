//! `Prefer: wait=N` on `POST /predict` and `GET /job/{id}`.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tepal_shared::queue::work::Settlement;
use tepal_tests::{
    fault_proxy::FaultProxy,
    http::{Answer, Client, Method},
    redis::RedisServer,
    wait::eventually,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

use crate::site::{RESULT, SOON, Site, row};

const WAIT: &[(&str, &str)] = &[("prefer", "wait=60")];

async fn get(client: &Client, id: &str, headers: &[(&str, &str)]) -> Answer {
    client.request(Method::GET, &format!("/job/{id}"), headers, "").await
}

#[tokio::test]
async fn a_submission_that_waits_is_answered_with_the_finished_job() {
    let site = Site::start(&[]).await;
    let rows = row();
    let prefer = [("prefer", "respond-async, wait=60")];

    let (answer, id) = tokio::join!(site.client.try_predict(&rows, &prefer), site.complete_one());

    let answer = answer.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("preference-applied"), Some("wait=60"));
    assert_eq!(answer.header("content-location"), Some(format!("/job/{id}").as_str()));
    let job = answer.json();
    assert_eq!(job["job_id"], id.to_string());
    assert_eq!(job["status"], "completed");
    assert_eq!(job["result"], serde_json::from_str::<Value>(RESULT).unwrap());
    assert_eq!(job, site.client.job(&id.to_string()).await);
}

#[tokio::test]
async fn a_submission_whose_wait_is_over_is_answered_as_usual() {
    let site = Site::start(&[]).await;
    let begun = Instant::now();
    let answer = site.client.try_predict(&row(), &[("prefer", "wait=1")]).await.unwrap();

    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert_eq!(answer.status, 202);
    assert_eq!(answer.header("preference-applied"), Some("wait=1"));
    let id = answer.json()["job_id"].as_str().unwrap().to_owned();
    assert_eq!(answer.json(), json!({"job_id": id, "status": "pending"}));
    assert_eq!(answer.header("location"), Some(format!("/job/{id}").as_str()));
}

#[tokio::test]
async fn without_a_preference_nobody_waits_and_nothing_is_applied() {
    let site = Site::start(&[]).await;
    let id = site.submit().await;
    let answer = get(&site.client, &id, &[("prefer", "respond-async")]).await;
    assert_eq!((answer.status, answer.header("preference-applied")), (200, None));
    assert_eq!(answer.json()["status"], "pending");
    assert_eq!(site.channels(), 0);
}

#[tokio::test]
async fn a_reader_is_woken_by_every_way_a_job_can_end() {
    let site = Site::start(&[]).await;
    let failure =
        || Settlement::Fail { code: "invalid_argument".to_owned(), error: "The model said no".to_owned() };
    for expected in ["completed", "failed", "cancelled"] {
        let id = site.submit().await;
        let ending = async {
            let attempt = site.take().await;
            match expected {
                "completed" => site.complete(&attempt).await,
                "failed" => site.settle(&attempt, failure()).await,
                _ => assert_eq!(site.client.delete(&format!("/job/{id}")).await.status, 200),
            }
        };
        let (answer, ()) = tokio::join!(get(&site.client, &id, WAIT), ending);
        assert_eq!(answer.json()["status"], expected);
        assert_eq!(answer.header("preference-applied"), Some("wait=60"));
    }
}

#[tokio::test]
async fn a_job_that_misses_its_deadline_while_it_is_waited_for_ends_then() {
    let site = Site::start(&[]).await;
    let body = json!({"data": row(), "max_queue_seconds": 0.5});
    let headers = [("content-type", "application/json"), ("prefer", "wait=60")];
    let answer = site.client.request(Method::POST, "/predict", &headers, body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["error_code"], "queue_timeout");
}

#[tokio::test]
async fn waiting_for_what_does_not_exist_ends_at_once() {
    let site = Site::start(&[]).await;
    let id = "0190a5b4-0000-7000-8000-000000000000";
    let begun = Instant::now();
    assert_eq!(get(&site.client, id, WAIT).await.status, 404);
    let finished = site.submit().await;
    site.complete_one().await;
    assert_eq!(get(&site.client, &finished, WAIT).await.json()["status"], "completed");
    assert!(begun.elapsed() < Duration::from_secs(30));
}

#[tokio::test]
async fn many_waiters_share_one_connection() {
    const WAITERS: usize = 1_200;
    let site = Site::start(&[]).await;
    let mut ids = Vec::new();
    for _ in 0..WAITERS / 3 {
        ids.push(site.submit().await);
    }
    let connections = || site.redis.cli(&["CLIENT", "LIST"]).lines().filter(|line| !line.is_empty()).count();
    let before = connections();
    let mut waiters = JoinSet::new();
    for id in ids.iter().cycle().take(WAITERS) {
        let (client, id) = (site.client.clone(), id.clone());
        waiters.spawn(async move { get(&client, &id, WAIT).await });
    }
    eventually(SOON, "every job is followed", || async { site.channels() == ids.len() }).await;
    assert_eq!(connections(), before + 1);

    for _ in &ids {
        site.complete_one().await;
    }
    while let Some(answer) = waiters.join_next().await {
        let answer = answer.unwrap();
        assert_eq!(answer.json()["status"], "completed", "{}", answer.text());
    }
    eventually(SOON, "no job is followed", || async { site.channels() == 0 }).await;
}

#[tokio::test]
async fn a_waiter_is_let_go_when_its_client_goes_away() {
    let site = Site::start(&[]).await;
    let id = site.submit().await;
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(site.proxy.addr()).await.unwrap();
        let request = format!("GET /job/{id} HTTP/1.1\r\nhost: x\r\nprefer: wait=60\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        clients.push(stream);
    }
    eventually(SOON, "the job is followed", || async { site.channels() == 1 }).await;

    let mut stays = clients.pop().unwrap();
    drop(clients);
    // The one that stays keeps the channel.
    site.complete_one().await;
    let mut answer = vec![0; 4096];
    let length = stays.read(&mut answer).await.unwrap();
    assert!(String::from_utf8_lossy(&answer[..length]).contains("\"completed\""));
    drop(stays);
    eventually(SOON, "the job is not followed any more", || async { site.channels() == 0 }).await;

    let id = site.submit().await;
    let mut alone = TcpStream::connect(site.proxy.addr()).await.unwrap();
    let request = format!("GET /job/{id} HTTP/1.1\r\nhost: x\r\nprefer: wait=60\r\n\r\n");
    alone.write_all(request.as_bytes()).await.unwrap();
    eventually(SOON, "the job is followed", || async { site.channels() == 1 }).await;
    drop(alone);
    eventually(Duration::from_secs(5), "the job is let go", || async { site.channels() == 0 }).await;
}

#[tokio::test]
async fn a_wait_survives_a_lost_connection_to_redis() {
    let redis = RedisServer::shipped().start().await;
    let fault = FaultProxy::start(&redis.addr()).await;
    let url = redis.proxy_url_at(&fault.addr());
    let site = Site::start_at(redis, &url, &[]).await;
    let id = site.submit().await;

    let faults = async {
        eventually(SOON, "the job is followed", || async { site.channels() == 1 }).await;
        // The job ends while the proxy cannot hear of it.
        fault.down().await;
        eventually(SOON, "the channel is lost", || async { site.channels() == 0 }).await;
        site.complete_one().await;
        fault.pass();
    };
    let (answer, ()) = tokio::join!(get(&site.client, &id, WAIT), faults);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["status"], "completed");

    // And what ends after the reconnection is heard of, too.
    let id = site.submit().await;
    let faults = async {
        eventually(SOON, "the job is followed", || async { site.channels() == 1 }).await;
        fault.cut_all().await;
        eventually(SOON, "the job is followed again", || async { site.channels() == 1 }).await;
        site.complete_one().await;
    };
    let (answer, ()) = tokio::join!(get(&site.client, &id, WAIT), faults);
    assert_eq!(answer.json()["status"], "completed");
}

#[tokio::test]
async fn a_half_open_connection_is_noticed() {
    let redis = RedisServer::shipped().start().await;
    let fault = FaultProxy::start(&redis.addr()).await;
    let url = redis.proxy_url_at(&fault.addr());
    let site = Site::start_at(redis, &url, &[]).await;
    let id = site.submit().await;
    let faults = async {
        eventually(SOON, "the job is followed", || async { site.channels() == 1 }).await;
        fault.half_open();
        site.complete_one().await;
        // Nothing closes the connections; the proxy must find out itself.
        site.proxy.wait_for_log("watching_interrupted", SOON).await;
        fault.pass();
    };
    let (answer, ()) = tokio::join!(get(&site.client, &id, WAIT), faults);
    assert_eq!(answer.json()["status"], "completed");
}

#[tokio::test]
async fn a_proxy_that_may_not_subscribe_says_so_once_and_tries_ever_less_often() {
    let site = Site::start(&[]).await;
    let id = site.submit().await;
    let logged = |action| site.proxy.logs().lines().iter().filter(|line| line.contains(action)).count();
    let faults = async {
        eventually(SOON, "the job is followed", || async { site.channels() == 1 }).await;
        let begun = Instant::now();
        // Redis disconnects a user that subscribes without the right to. The proxy can connect and do everything else.
        site.redis.cli(&["ACL", "SETUSER", "tepal-proxy", "resetchannels"]);
        eventually(SOON, "six refusals", || async { refused_subscriptions(&site) >= 6 }).await;
        // Before them lie pauses of 50 ms, 100 ms and so on to 1.6 s, plus or minus half.
        assert!(begun.elapsed() >= Duration::from_millis(1500), "{:?}", begun.elapsed());
        assert_eq!((logged("watching_interrupted"), logged("watching_again")), (1, 0));
        site.redis.cli(&["ACL", "SETUSER", "tepal-proxy", "allchannels"]);
        eventually(SOON, "the job is followed again", || async { site.channels() == 1 }).await;
        site.complete_one().await;
    };
    let (answer, ()) = tokio::join!(get(&site.client, &id, WAIT), faults);
    assert_eq!(answer.json()["status"], "completed");
    assert_eq!((logged("watching_interrupted"), logged("watching_again")), (1, 1));
}

/// How many times Redis has rejected a subscription.
fn refused_subscriptions(site: &Site) -> u64 {
    site.redis.command_stat("ssubscribe", "rejected_calls")
}

#[tokio::test]
async fn a_job_is_accepted_even_if_redis_goes_away_during_the_wait() {
    let redis = RedisServer::shipped().start().await;
    let fault = FaultProxy::start(&redis.addr()).await;
    let url = redis.proxy_url_at(&fault.addr());
    let site = Site::start_at(redis, &url, &[]).await;
    let rows = row();
    let submission = site.client.try_predict(&rows, &[("prefer", "wait=3")]);
    let faults = async {
        eventually(SOON, "the job is followed", || async { site.channels() == 1 }).await;
        fault.down().await;
    };
    let (answer, ()) = tokio::join!(submission, faults);
    assert_eq!(answer.unwrap().status, 202);
}

#[tokio::test]
async fn waits_end_when_the_proxy_stops() {
    let site = Site::start(&[]).await;
    let id = site.submit().await;
    let rows = row();
    let stopping = async {
        eventually(SOON, "both jobs are followed", || async { site.channels() == 2 }).await;
        site.proxy.sigterm();
        site.proxy.wait_exit(SOON).await
    };
    let begun = Instant::now();
    let (read, submitted, status) =
        tokio::join!(get(&site.client, &id, WAIT), site.client.try_predict(&rows, WAIT), stopping);
    assert_eq!(read.json()["status"], "pending");
    assert_eq!(submitted.unwrap().status, 202);
    assert!(status.success());
    assert!(begun.elapsed() < Duration::from_secs(30));
}

#[tokio::test]
async fn a_wait_for_a_job_that_is_gone_ends_soon_with_404() {
    let site = Site::start(&[]).await;
    for flush in [false, true] {
        let id = site.submit().await;
        let key = site.store.queue.keys().job(id.parse().unwrap());
        let removing = async {
            eventually(SOON, "the job is followed", || async { site.channels() == 1 }).await;
            if flush {
                site.redis.cli(&["FLUSHALL"])
            } else {
                site.redis.cli(&["DEL", &key])
            };
        };
        let begun = Instant::now();
        let (answer, ()) = tokio::join!(get(&site.client, &id, WAIT), removing);
        assert_eq!(answer.status, 404, "{}", answer.text());
        assert!(begun.elapsed() < Duration::from_secs(30));
        eventually(SOON, "the job is not followed any more", || async { site.channels() == 0 }).await;
    }
}
