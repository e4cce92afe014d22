//! Connections that are held, slow, or not used for HTTP.

use std::time::Duration;

use tokio::time::sleep;

use super::super::field::{Field, Volley};
use super::super::wire::{get, head_of};

const SLOWLY: Duration = Duration::from_millis(500);

/// Every stream reads all that it gets.
pub(super) async fn streams(field: &Field) {
    let ask = get(&format!("/job/{}", field.seeds.held), "accept: text/event-stream\r\n");
    field
        .each_address(100, |field, from| {
            let ask = ask.clone();
            async move {
                let Some(mut wire) = field.open(from).await else { return };
                field.tally.sent(ask.len());
                if wire.send(&ask).await.is_err() {
                    return field.tally.note("connection closed");
                }
                let mut is_open = false;
                while let Ok(bytes) = wire.some().await
                    && !bytes.is_empty()
                {
                    field.tally.received(bytes.len());
                    if !is_open {
                        is_open = true;
                        field.tally.note(stream_outcome(&bytes));
                    }
                }
                field.tally.note("stream ended");
                // One who comes back at once asks for what it has seen.
                std::future::pending::<()>().await;
            }
        })
        .await;
}

fn stream_outcome(bytes: &[u8]) -> &'static str {
    match bytes.get(9..12) {
        Some(b"200") => "200 stream",
        Some(b"429") => "429 rate_limited",
        Some(b"503") => "503 overloaded",
        _ => "another answer",
    }
}

/// Heads that come byte by byte.
pub(super) async fn slow_heads(field: &Field) {
    field.trickle(100, b"GET /job/a1b2c3 HTTP/1.1\r\nhost: tepal\r\nx-slow: ", SLOWLY).await;
}

/// Heads that do not end.
pub(super) async fn endless_heads(field: &Field) {
    let start = format!("GET /job/a1b2c3 HTTP/1.1\r\nhost: tepal\r\nx-long: {}", "x".repeat(64 << 10));
    field.trickle(100, start.as_bytes(), SLOWLY).await;
}

/// Connections that send no request, and are opened again when they are closed.
pub(super) async fn idle(field: &Field) {
    field
        .each_address(600, |field, from| async move {
            while !field.is_over() {
                let Some(mut wire) = field.open(from).await else { continue };
                field.tally.note("connected");
                let _ = wire.some().await;
                field.tally.note("connection closed");
                sleep(SLOWLY).await;
            }
        })
        .await;
}

/// Connections that are closed at once.
pub(super) async fn churn(field: &Field) {
    field
        .each_address(2, |field, from| async move {
            while !field.is_over() {
                if field.open(from).await.is_some() {
                    field.tally.note("connected");
                }
            }
        })
        .await;
}

/// Bytes after a request that are no request.
pub(super) async fn garbage(field: &Field) {
    let good = head_of("GET /livez", "");
    let garbage = [good.as_bytes(), &[0xFE, 0, b'\n', 0x80], "\x16\x03\x01".repeat(100).as_bytes()].concat();
    let volley = Volley { requests: 2, ..Volley::one(garbage).costing(0) };
    field
        .each_address(2, |field, from| {
            let volley = volley.clone();
            async move {
                while !field.is_over() {
                    let Some(mut wire) = field.open(from).await else { continue };
                    field.send(&mut wire, from, &volley).await;
                }
            }
        })
        .await;
}
