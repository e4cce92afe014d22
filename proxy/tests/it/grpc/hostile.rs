//! Clients that break the rules of HTTP/2, or use all that it allows. They are real clients (`h2`), and raw bytes where that library
//! would refuse.

use std::time::Duration;

use axum::http::Request;
use futures_util::future::join_all;
use h2::Reason;
use prost::{Message as _, bytes::Bytes};
use tepal_proto::open_inference::ServerLiveRequest;
use tepal_tests::wait::eventually;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
    time::timeout,
};

use super::{
    Site, asked, flower,
    wire::{INFER, LIVE, Wire, call, framed, status_of},
};
use crate::{
    gateway::SOON,
    hostile::peak_mib,
    v2::{becomes, count},
};

/// What a connection of HTTP/2 begins with (RFC 9113, section 3.4), and an empty frame of settings.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// The type of the frame that ends a connection.
const GOAWAY: u8 = 7;

/// The types of the frames (RFC 9113, section 4.1).
fn frames(mut bytes: &[u8]) -> Vec<u8> {
    let mut types = Vec::new();
    while let Some((&[a, b, c, kind, ..], rest)) = bytes.split_first_chunk::<9>() {
        types.push(kind);
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        bytes = rest.get(length..).unwrap_or_default();
    }
    types
}

/// Another client is served in time.
async fn others_are_served(site: &Site) {
    let mut client = site.client().await;
    timeout(SOON, client.server_live(ServerLiveRequest {})).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_connection_has_a_hundred_streams_and_an_address_half_of_all_calls() {
    let site = Site::with(&[("MAX_CONNECTIONS", "100")]).await;
    let mut client = site.client().await;
    let waiting: Vec<_> = (0..200)
        .map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move { client.model_infer(asked(flower())).await })
        })
        .collect();
    eventually(SOON, "half of the calls", async || count(&site.gateway, "pending").await == 50).await;
    let metrics = site.gateway.get("/metrics").await;
    assert_eq!(metrics.metric("tepal_http_requests_postponed_total"), 50.0, "{}", metrics.text());
    // The others wait with the client, and monitoring does not.
    others_are_served(&site).await;
    waiting.iter().for_each(JoinHandle::abort);
    join_all(waiting).await;
    eventually(SOON, "the jobs to be cancelled", async || count(&site.gateway, "pending").await == 0).await;
    assert!(client.server_live(ServerLiveRequest {}).await.is_ok(), "the connection is as good as before");
}

#[tokio::test]
async fn messages_that_do_not_end_are_refused_at_the_limit() {
    let site = Site::with(&[("MAX_BODY_BYTES", "262144"), ("BODY_MEMORY_BYTES", "16777216")]).await;
    let before = peak_mib(site.gateway.proxy.pid());
    let mut endless = Vec::new();
    for _ in 0..20 {
        let mut wire = Wire::open(&site).await;
        endless.push(tokio::spawn(async move {
            let (answer, mut body) = wire.begin(INFER).await;
            // It says that four GiB follow.
            let mut next = Bytes::from_static(&[0, 255, 255, 255, 255]);
            let sending = async {
                loop {
                    body.reserve_capacity(next.len().max(1 << 14));
                    match std::future::poll_fn(|context| body.poll_capacity(context)).await {
                        Some(Ok(room))
                            if body.send_data(next.slice(..next.len().min(room)), false).is_ok() => {}
                        _ => return std::future::pending::<()>().await,
                    }
                    next = Bytes::from_static(&[b'x'; 1 << 14]);
                }
            };
            tokio::select! {
                status = status_of(answer) => status,
                () = sending => panic!("it never ends"),
            }
        }));
    }
    for status in join_all(endless).await {
        // RESOURCE_EXHAUSTED
        assert_eq!(status.unwrap().unwrap(), "8");
    }
    others_are_served(&site).await;
    let now = peak_mib(site.gateway.proxy.pid());
    assert!(now <= before + 64, "{before} -> {now} MiB");
    assert_eq!(site.gateway.log_length(), 0);
}

#[tokio::test]
async fn a_message_that_comes_too_slowly_is_refused() {
    let site = Site::with(&[("BODY_TIMEOUT_MS", "500")]).await;
    let mut wire = Wire::open(&site).await;
    let (answer, mut body) = wire.begin(INFER).await;
    body.send_data(Bytes::from_static(&[0, 0, 0]), false).unwrap();
    // DEADLINE_EXCEEDED
    assert_eq!(status_of(answer).await.unwrap(), "4");
    assert_eq!(wire.ask(LIVE, &[], b"").await.unwrap(), "0", "the connection goes on");
}

#[tokio::test]
async fn heads_that_are_too_large_are_refused_and_the_connection_goes_on() {
    let site = Site::start().await;
    let mut wire = Wire::open(&site).await;
    let long = "x".repeat(20 << 10);
    let refused = wire.ask(LIVE, &[("x-long", &long)], b"").await;
    assert!(refused.is_err() || refused.is_ok_and(|status| status == "431"));
    assert_eq!(wire.ask(LIVE, &[], b"").await.unwrap(), "0");
}

#[tokio::test]
async fn a_head_without_an_end_ends_its_connection() {
    let site = Site::start().await;
    let before = peak_mib(site.gateway.proxy.pid());
    let flood = async |_: usize| {
        let mut stream = TcpStream::connect(&site.addr).await.unwrap();
        stream.write_all(PREFACE).await.unwrap();
        // HEADERS without END_HEADERS, then CONTINUATION frames of 16 KiB without an end.
        stream.write_all(b"\0\0\x01\x01\0\0\0\0\x01\x82").await.unwrap();
        let (mut reader, mut writer) = stream.into_split();
        let continuation = [&b"\0\x40\0\x09\0\0\0\0\x01"[..], &[0x82; 1 << 14]].concat();
        let send = async {
            while writer.write_all(&continuation).await.is_ok() {}
            std::future::pending::<()>().await;
        };
        let mut rest = Vec::new();
        tokio::select! {
            end = timeout(SOON, reader.read_to_end(&mut rest)) => assert!(end.is_ok(), "it is not closed"),
            () = send => {}
        }
    };
    join_all((0..50).map(flood)).await;
    others_are_served(&site).await;
    let now = peak_mib(site.gateway.proxy.pid());
    assert!(now <= before + 32, "{before} -> {now} MiB");
}

#[tokio::test]
async fn streams_that_are_reset_at_once_end_their_connection() {
    let site = Site::start().await;
    let mut wire = Wire::open(&site).await;
    let mut resets = 0;
    // One after the other, so that each reaches its handler: the limit of the library counts only those that do not.
    while !wire.connection.is_finished() && resets < 5000 {
        let Ok(ready) = wire.send.clone().ready().await else { break };
        wire.send = ready;
        let Ok((answer, mut body)) = wire.send.send_request(call(INFER, &[]), false) else { break };
        body.send_reset(Reason::CANCEL);
        drop(answer);
        resets += 1;
        if resets % 10 == 0 {
            tokio::task::yield_now().await;
        }
    }
    timeout(SOON, wire.connection).await.unwrap().unwrap().unwrap_err();
    assert!(resets < 5000, "{resets}");
    others_are_served(&site).await;
    assert_eq!(site.gateway.log_length(), 0);
}

#[tokio::test]
async fn who_does_not_read_the_answers_is_cut_off() {
    let site = Site::with(&[("BODY_TIMEOUT_MS", "1000")]).await;
    // The window of the client's streams never opens.
    let mut wire = Wire::with(&site, h2::client::Builder::new().initial_window_size(0)).await;
    let (answer, mut body) = wire.begin(LIVE).await;
    body.send_data(framed(&ServerLiveRequest {}.encode_to_vec()), true).unwrap();
    let answer = timeout(SOON, answer).await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
    let _ = wire.ended().await;
    drop(answer);
    others_are_served(&site).await;
}

#[tokio::test]
async fn idle_connections_are_asked_to_leave_and_make_room() {
    let settings =
        [("HEADER_TIMEOUT_MS", "1000"), ("IDLE_TIMEOUT_MS", "500"), ("GRPC_MAX_CONNECTIONS", "10")];
    let site = Site::with(&settings).await;
    let mut wire = Wire::open(&site).await;
    assert_eq!(wire.ask(LIVE, &[], b"").await.unwrap(), "0");
    let _ = wire.ended().await;

    // A connection without a call gets GOAWAY, too, so that its client knows that nothing was done.
    let mut silent = TcpStream::connect(&site.addr).await.unwrap();
    silent.write_all(PREFACE).await.unwrap();
    let mut said = Vec::new();
    let _ = timeout(SOON, silent.read_to_end(&mut said)).await.unwrap();
    assert!(frames(&said).contains(&GOAWAY), "{said:?}");

    let mut idle = Vec::new();
    for _ in 0..50 {
        idle.push(TcpStream::connect(&site.addr).await.unwrap());
    }
    others_are_served(&site).await;
    let open = async || site.gateway.get("/metrics").await.metric("tepal_http_connections") <= 12.0;
    eventually(SOON, "the first ones to lose their slots", open).await;
}

#[tokio::test]
async fn a_call_in_progress_is_never_given_up_for_a_new_connection() {
    let site = Site::with(&[("GRPC_MAX_CONNECTIONS", "2"), ("HEADER_TIMEOUT_MS", "3600000")]).await;
    let mut client = site.client().await;
    let call = tokio::spawn(async move { client.model_infer(asked(flower())).await });
    becomes(&site.gateway, "pending").await;
    let mut idle = Vec::new();
    for _ in 0..20 {
        idle.push(TcpStream::connect(&site.addr).await.unwrap());
    }
    others_are_served(&site).await;
    let job = crate::v2::next_job(&site.gateway).await;
    crate::v2::complete(&site.gateway, &job.attempt.claim, &[crate::v2::output()]).await;
    assert!(call.await.unwrap().is_ok());
}

#[tokio::test]
async fn what_is_no_http_2_or_no_grpc_is_not_served() {
    let site = Site::start().await;
    for garbage in
        [&b"GET /livez HTTP/1.1\r\nhost: tepal\r\n\r\n"[..], b"\x16\x03\x01\0\0", b"PRI * HTTP/2.0\r\n\r\nno"]
    {
        let mut stream = TcpStream::connect(&site.addr).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = timeout(SOON, stream.read_to_end(&mut answer)).await.unwrap();
        assert!(!answer.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&answer));
    }
    let mut wire = Wire::open(&site).await;
    wire.send = wire.send.clone().ready().await.unwrap();
    let get = Request::get(LIVE).header("content-type", "application/grpc").body(()).unwrap();
    // UNIMPLEMENTED
    assert_eq!(status_of(wire.send.send_request(get, true).unwrap().0).await.unwrap(), "12");
    let page = Request::post(LIVE).header("content-type", "application/json").body(()).unwrap();
    let answer = timeout(SOON, wire.send.send_request(page, true).unwrap().0).await.unwrap().unwrap();
    assert_eq!(answer.status(), 415);
    for (message, code) in [(&b"\x0a\xff"[..], "3"), (b"\xff", "3")] {
        assert_eq!(wire.ask(INFER, &[], message).await.unwrap(), code);
    }
}

#[tokio::test]
async fn garbage_after_a_good_call_ends_its_connection_only() {
    let site = Site::start().await;
    let mut stream = TcpStream::connect(&site.addr).await.unwrap();
    stream.write_all(PREFACE).await.unwrap();
    stream.write_all(&[0xff; 100]).await.unwrap();
    let mut rest = Vec::new();
    let _ = timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await.unwrap();
    others_are_served(&site).await;
}
