//! One address that holds every place that it can get, while a client on another address wants answers.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use tepal_shared::queue::work::Settlement;
use tepal_tests::{http::Client, wait::eventually};
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    sync::Semaphore,
    task::JoinSet,
    time::{interval, timeout},
};

use super::{SERVED_WITHIN, Siege, attackers, connect, head, outcome, to_the_end};
use crate::gateway::{FLOWER, Gateway, SETOSA, SOON};

const PLACES: (&str, &str) = ("MAX_CONNECTIONS", "200");
/// Another one than that of the attackers, which connect from 127.0.0.1.
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

impl Siege {
    /// A client elsewhere gets every answer, each over a connection of its own.
    async fn another_address_is_served(&mut self) {
        for _ in 0..8 {
            let other = Client::from_address(self.gateway.proxy.base_url(), ELSEWHERE);
            let answer = other.with_timeout(SERVED_WITHIN).post_raw("/predict", FLOWER).await;
            assert_eq!(answer.status, 202, "{}", answer.text());
            self.submitted += 1;
        }
    }

    /// Each attacker sends this over and over, and then a byte now and then, until its connection is closed. Returns when all
    /// have begun and all slots are in use.
    async fn attack(&self, count: usize, start: &str) -> JoinSet<()> {
        let (addr, mut all, begun) = (self.addr(), JoinSet::new(), Arc::new(Semaphore::new(0)));
        for _ in 0..count {
            let (start, begun) = (start.to_owned(), Arc::clone(&begun));
            all.spawn(async move {
                loop {
                    let Ok(mut connection) = TcpStream::connect(addr).await else { continue };
                    let mut pace = interval(Duration::from_millis(100));
                    let mut sent = connection.write_all(start.as_bytes()).await;
                    begun.add_permits(1);
                    while sent.is_ok() {
                        pace.tick().await;
                        sent = connection.write_all(b" ").await;
                    }
                }
            });
        }
        drop(begun.acquire_many(count.try_into().unwrap()).await.unwrap());
        let taken = async || self.metric("tepal_http_connections").await > 199.5;
        eventually(SOON, "all slots to be in use", taken).await;
        all
    }

    async fn metric(&self, name: &str) -> f64 {
        let watching = Client::from_address(self.gateway.proxy.base_url(), ELSEWHERE);
        watching.get("/metrics").await.metric(name)
    }
}

#[tokio::test]
async fn refused_bodies_that_do_not_end() {
    let mut siege = Siege::lay("refused bodies on every place", &[PLACES]).await;
    let count = attackers(1000);
    let start = head("POST /nowhere", "content-type: text/plain\r\ncontent-length: 1000000\r\n");
    let mut attack = siege.attack(count, &start).await;
    let waiting = "tepal_http_connections_waiting";
    eventually(SOON, "attackers to wait", async || siege.metric(waiting).await > 0.5).await;
    siege.another_address_is_served().await;
    siege.held(count, 32);
    attack.shutdown().await;
    eventually(SOON, "nobody to wait", async || siege.metric(waiting).await.abs() < 0.5).await;
}

#[tokio::test]
async fn requests_that_no_route_matches() {
    let settings = [PLACES, ("RATE_LIMIT_PER_MINUTE", "100")];
    let mut siege = Siege::lay("unmatched requests on every place", &settings).await;
    let count = attackers(500);
    let start = "GET /nowhere HTTP/1.1\r\nhost: tepal\r\n\r\n".repeat(5);
    let _attack = siege.attack(count, &start).await;
    siege.another_address_is_served().await;
    siege.held(count, 32);
    let refused = "tepal_http_requests_total{method=\"GET\",route=\"unmatched\",status=\"429\"}";
    let count = async || if siege.metric(refused).await > 0.5 { Ok(()) } else { Err("none is refused") };
    eventually(SOON, "unmatched requests to count", count).await;
}

#[tokio::test]
async fn bodies_that_take_all_the_time_that_they_may() {
    let settings = [PLACES, ("BODY_TIMEOUT_MS", "600000")];
    let mut siege = Siege::lay("slow bodies on every place", &settings).await;
    let count = attackers(400);
    let start = head("POST /predict", "content-type: application/json\r\ncontent-length: 1000\r\n");
    let _attack = siege.attack(count, &start).await;
    siege.another_address_is_served().await;
    siege.held(count, 32);
}

#[tokio::test]
async fn requests_that_wait_for_a_job() {
    let mut siege = Siege::lay("waiting requests on every place", &[PLACES]).await;
    let id = siege.gateway.submit().await;
    siege.submitted += 1;
    let count = attackers(400);
    let start = head(&format!("GET /job/{id}"), "prefer: wait=60\r\n");
    let _attack = siege.attack(count, &start).await;
    siege.another_address_is_served().await;
    siege.held(count, 32);
}

#[tokio::test]
async fn answers_that_are_not_counted_and_that_nobody_reads() {
    let mut siege = Siege::lay("free answers on every place", &[PLACES]).await;
    let count = attackers(400);
    let start = "GET /openapi.json HTTP/1.1\r\nhost: tepal\r\n\r\n".repeat(100);
    let _attack = siege.attack(count, &start).await;
    siege.another_address_is_served().await;
    siege.held(count, 64);
}

/// Fifteen requests from one address, for twenty slots. Each stores a job and waits for its end.
async fn fifteen(gateway: &Gateway) -> Vec<TcpStream> {
    let more =
        format!("content-type: application/json\r\nprefer: wait=60\r\ncontent-length: {}\r\n", FLOWER.len());
    let ask = head("POST /predict", &more) + FLOWER;
    let mut all = connect(15, gateway.proxy.addr().parse().unwrap()).await;
    for connection in &mut all {
        connection.write_all(ask.as_bytes()).await.unwrap();
    }
    all
}

#[tokio::test]
async fn what_is_beyond_an_addresss_share_waits_for_its_turn() {
    let gateway = Gateway::with(&[("MAX_CONNECTIONS", "20")]).await;
    let all = fifteen(&gateway).await;
    let share = async || {
        let postponed = gateway.get("/metrics").await.metric("tepal_http_requests_postponed_total");
        let jobs = gateway.log_length();
        // The page counts as a request at work while it is made, so that one may wait for it.
        if jobs == 10 && postponed > 4.5 { Ok(()) } else { Err(format!("{jobs} {postponed}")) }
    };
    eventually(SOON, "ten requests at work, and five that wait", share).await;

    for attempt in gateway.take(0).await {
        gateway.settle(&attempt, Settlement::Complete(SETOSA.to_owned())).await;
    }
    eventually(SOON, "the others to begin", async || gateway.log_length() == 15).await;
    for attempt in gateway.take(0).await {
        gateway.settle(&attempt, Settlement::Complete(SETOSA.to_owned())).await;
    }
    for connection in all {
        assert_eq!(outcome(&to_the_end(connection).await).0, 200);
    }
}

#[tokio::test]
async fn connections_of_a_trusted_proxy_have_no_share() {
    let gateway = Gateway::with(&[("MAX_CONNECTIONS", "20"), ("TRUSTED_PROXIES", "127.0.0.1/32")]).await;
    let _all = fifteen(&gateway).await;
    eventually(SOON, "all to begin", async || gateway.log_length() == 15).await;
}

#[tokio::test]
async fn an_address_that_has_many_bodies_discarded_is_answered_and_cut_off() {
    let gateway = Gateway::start().await;
    let start = head("POST /nowhere", "content-type: text/plain\r\ncontent-length: 1000000\r\n");
    let start = start.replace("connection: close\r\n", "");
    let all = join_all((0..200).map(|_| async {
        let mut connection = TcpStream::connect(gateway.proxy.addr()).await.unwrap();
        connection.write_all(start.as_bytes()).await.unwrap();
        to_the_end(connection).await
    }));
    let answers = timeout(SOON, all).await.unwrap();
    assert!(answers.iter().all(|answer| outcome(answer) == (404, "not_found".to_owned())));
    let closed =
        answers.iter().filter(|answer| String::from_utf8_lossy(answer).contains("connection: close"));
    assert!(closed.count() > 0);
}
