//! Bodies that are slow, endless, or many.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::{io::AsyncWriteExt as _, time::interval};

use super::{Siege, ask, attackers, connect, head, outcome, to_the_end};
use crate::gateway::FLOWER;

/// Smaller than the default, so that the test moves fewer bytes.
const LARGEST: (&str, &str) = ("MAX_BODY_BYTES", "262144");
const MEMORY: (&str, &str) = ("BODY_MEMORY_BYTES", "16777216");
const LARGEST_BYTES: usize = 1 << 18;
const JSON: &str = "content-type: application/json\r\n";

#[tokio::test]
async fn bodies_that_come_byte_by_byte() {
    let mut siege = Siege::lay("slow bodies", &[("BODY_TIMEOUT_MS", "2000")]).await;
    let count = attackers(500);
    let start = head("POST /predict", &format!("{JSON}content-length: 1000\r\n"));
    let slow = connect(count, siege.addr()).await.into_iter().map(|mut connection| {
        let start = start.clone();
        tokio::spawn(async move {
            connection.write_all(start.as_bytes()).await.unwrap();
            let mut pace = interval(Duration::from_millis(100));
            // For at most 5 s: half of them go on after they were refused.
            for _ in 0..50 {
                pace.tick().await;
                if connection.write_all(b" ").await.is_err() {
                    break;
                }
            }
            to_the_end(connection).await
        })
    });
    let slow: Vec<_> = slow.collect();
    siege.others_are_served().await;
    siege.held(count, 32);
    for answer in join_all(slow).await {
        let (status, code) = outcome(&answer.unwrap());
        // A client that keeps sending may see the connection break before it reads the answer.
        assert!((status, code.as_str()) == (408, "request_timeout") || status == 0, "{status} {code}");
    }
}

#[tokio::test]
async fn bodies_that_do_not_end() {
    let mut siege = Siege::lay("endless bodies", &[LARGEST]).await;
    let count = 20;
    let addr = siege.addr();
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    // 4 MiB each; the proxy reads little more than half.
    let endless = head("POST /predict", &format!("{JSON}transfer-encoding: chunked\r\n")) + &chunk.repeat(64);
    let attack = {
        let endless = endless.into_bytes();
        tokio::spawn(async move { join_all((0..count).map(|_| ask(addr, &endless))).await })
    };
    siege.others_are_served().await;
    for answer in attack.await.unwrap() {
        let (status, code) = outcome(&answer);
        assert!((status, code.as_str()) == (413, "payload_too_large") || status == 0, "{status} {code}");
    }
    siege.held(count, 64);
}

#[tokio::test]
async fn large_bodies_together_are_bounded_and_small_ones_do_not_wait_for_them() {
    let mut siege =
        Siege::lay("large bodies held open", &[LARGEST, MEMORY, ("BODY_TIMEOUT_MS", "5000")]).await;
    let count = attackers(150);
    // All but the last byte of the largest body that is allowed.
    let start = head("POST /predict", &format!("{JSON}content-length: {LARGEST_BYTES}\r\n"));
    let held = [start.as_bytes(), FLOWER.as_bytes(), &b" ".repeat(LARGEST_BYTES - FLOWER.len() - 1)].concat();
    let addr = siege.addr();
    let attack = tokio::spawn(async move { join_all((0..count).map(|_| ask(addr, &held))).await });
    siege.others_are_served().await;
    // 16 MiB, twice while they grow, what the library has read ahead, and what the allocator keeps.
    siege.held(count, 96);
    let answers = attack.await.unwrap();
    let with = |expected: (u16, &str)| {
        let is_so = |answer: &&Vec<u8>| {
            let (status, code) = outcome(answer);
            (status, code.as_str()) == expected
        };
        answers.iter().filter(is_so).count()
    };
    let (late, refused) = (with((408, "request_timeout")), with((503, "overloaded")));
    // Each has 8 KiB for itself.
    let most = 64 * LARGEST_BYTES / (LARGEST_BYTES - (8 << 10));
    assert!((1..=most).contains(&late), "{late} of the largest bodies were there at once");
    assert!(refused > 0 && late + refused <= count, "{late} {refused}");

    // Afterwards there is room again.
    let large = [FLOWER.as_bytes(), &b" ".repeat(LARGEST_BYTES - FLOWER.len())].concat();
    assert_eq!(siege.gateway.proxy.client().post_raw("/predict", large).await.status, 202);
}
