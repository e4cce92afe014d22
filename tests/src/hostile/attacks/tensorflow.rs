//! Bodies of TensorFlow Serving's REST API that are read to their ends, and only there turn out to be wrong.

use super::super::field::{Field, Volley};
use super::super::wire::post;

/// Most rows by the default limit.
const ROWS: usize = 1024;
/// Room for all of a body but its numbers.
const FRAME: usize = 64;

/// Rows and columns of numbers with one digit. An element takes four times as much memory as its text.
pub(super) async fn numbers(field: &Field) {
    let numbers = "1,".repeat((field.largest_body - FRAME) / 2);
    let wrong_value = format!(r#"{{"instances":[[{numbers}"a"]]}}"#);
    let wrong_length = format!(r#"{{"inputs":[[{numbers}1],[1]]}}"#);
    let broken = format!(r#"{{"instances":[[{numbers}1"#);
    hammer(field, "/v1/models/language:predict", [wrong_value, wrong_length, broken]).await;
}

/// Texts in base64: as many as may be, as long as may be, of which the last is none; and many empty ones.
pub(super) async fn base64(field: &Field) {
    let text = |base64: &str| format!(r#"{{"b64":"{base64}"}}"#);
    let length = ((field.largest_body - FRAME) / ROWS - text(",").len()) / 4 * 4;
    let long = [text(&"A".repeat(length)), ",".to_owned()].concat().repeat(ROWS - 1);
    let rows = format!(r#"{{"instances":[{long}{}]}}"#, text("A"));
    let columns = format!(r#"{{"inputs":[{long}{}]}}"#, text("A"));
    let empty = [text("").as_str(), ","].concat().repeat((field.largest_body - FRAME) / (text("").len() + 1));
    let empty = format!(r#"{{"instances":[[{empty}0]]}}"#);
    hammer(field, "/v1/models/wide:predict", [rows, columns, empty]).await;
}

/// Sends all of these bodies again and again.
async fn hammer(field: &Field, path: &str, bodies: [String; 3]) {
    let [one, two, three] = bodies.map(|body| Volley::one(post(path, body.as_bytes())));
    tokio::join!(field.hammer(2, &one), field.hammer(2, &two), field.hammer(2, &three));
}
