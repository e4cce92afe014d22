//! Bodies that are large, slow, refused, or cause answers larger than themselves.

use std::time::Duration;

use tokio::time::Instant;

use super::super::field::{Field, Volley};
use super::super::wire::{head_of, post};

const JSON: &str = "content-type: application/json\r\n";
const SLOWLY: Duration = Duration::from_millis(500);
/// Most rows by the default limit; `MAX_BODY_BYTES` decides how many digits each number has.
const ROWS: usize = 1024;

/// A name that fills the body, and members that are refused one by one.
pub(super) async fn repeated_members(field: &Field) {
    let repeated = r#""":0,"#.repeat(21);
    let frame = r#"{"":{}}"#.len();
    let name = "~".repeat(field.largest_body - frame - repeated.len() - 8);
    let body = format!(r#"{{"{name}":{{{}}}}}"#, repeated.trim_end_matches(','));
    field.hammer(4, &Volley::one(post("/predict", body.as_bytes()))).await;
}

/// Batches of elements that are no jobs.
pub(super) async fn zeros(field: &Field) {
    let batch = |count: usize| {
        let body = format!("[{}]", vec!["0"; count].join(","));
        Volley::one(post("/predict/batch", body.as_bytes())).costing(1)
    };
    let (most_of_limit, most) = (batch(100), batch(1000));
    tokio::join!(field.hammer(2, &most_of_limit), field.hammer(2, &most));
}

/// Bodies that lack their last byte.
pub(super) async fn held(field: &Field) {
    let start = r#"{"data":[[5.1,3.5,1.4,0.2]]}"#;
    let body = start.to_owned() + &" ".repeat(field.largest_body - start.len());
    let mut request = post("/predict", body.as_bytes());
    request.pop();
    field.never_read(90, &Volley::one(request)).await;
}

/// JSON that takes the most memory for its length.
pub(super) async fn wide(field: &Field) {
    let count = (field.largest_body - 64) / 3;
    let body = format!(r#"{{"data":[{}]}}"#, vec!["{}"; count].join(","));
    field.hammer(4, &Volley::one(post("/predict", body.as_bytes()))).await;
}

/// Bodies of requests that are refused for any body.
pub(super) async fn refused(field: &Field) {
    let more = format!("{JSON}content-length: {}\r\n", field.largest_body);
    let request = head_of("PUT /predict", &more) + &" ".repeat(16 << 10);
    field.trickle(400, request.as_bytes(), Duration::from_millis(200)).await;
}

/// Bodies that come byte by byte.
pub(super) async fn slow(field: &Field) {
    let start = head_of("POST /predict", &format!("{JSON}content-length: 1000\r\n"));
    field.trickle(50, start.as_bytes(), SLOWLY).await;
}

/// Jobs whose inputs are kept, because they are cancelled.
pub(super) async fn storage(field: &Field) {
    let digits = (field.largest_body - 100) / ROWS / 4 - 8;
    let number = format!("5.{}", "1".repeat(digits));
    let row = format!("[{}]", [number.as_str(); 4].join(","));
    let body = format!(r#"{{"data":[{}],"priority":"low"}}"#, vec![row; ROWS].join(","));
    let submission = Volley::one(post("/predict", body.as_bytes()));
    field
        .each_address(4, |field, from| {
            let submission = submission.clone();
            async move {
                while !field.is_over() {
                    let Some(mut wire) = field.open(from).await else { continue };
                    while let Some(id) = submit(&field, &mut wire, from, &submission).await {
                        let cancel = head_of(&format!("DELETE /job/{id}"), "").into_bytes();
                        if !field.send(&mut wire, from, &Volley::one(cancel)).await {
                            break;
                        }
                    }
                }
            }
        })
        .await;
}

/// The id of an accepted job.
async fn submit(
    field: &Field,
    wire: &mut super::super::wire::Wire,
    from: std::net::Ipv4Addr,
    submission: &Volley,
) -> Option<String> {
    let (sent, mut id, mut is_limited) = (Instant::now(), None, false);
    field.tally.sent(submission.bytes.len());
    let exchanged = wire
        .exchange(&submission.bytes, 1, |answer| {
            field.tally.answered(from, sent.into_std(), 1, &answer);
            is_limited = answer.status >= 400;
            let job: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            id = job["job_id"].as_str().map(str::to_owned);
        })
        .await;
    if exchanged.is_err() {
        field.tally.note("connection closed");
    }
    if is_limited {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    id
}
