//! Each kind of wrong tensor over each way in (`data`, `inputs`, binary form), with its whole answer. The model has inputs of several
//! types, one of variable length.

use serde_json::{Value, json};
use tempfile::TempDir;
use tepal_tests::http::Answer;

use crate::{
    expect::invalid,
    gateway::{Gateway, accepted},
    tensor_jobs::send_binary,
};

const MODEL: &str = r#"
    name = "mixed"
    version = "1"
    max_batch = 4
    [[inputs]]
    name = "pixel"
    datatype = "UINT8"
    shape = [2]
    [[inputs]]
    name = "count"
    datatype = "INT64"
    shape = [1]
    [[inputs]]
    name = "score"
    datatype = "FP32"
    shape = [-1]
    [[inputs]]
    name = "text"
    datatype = "BYTES"
    shape = [1]
    [[outputs]]
    name = "sum"
    datatype = "FP32"
    shape = [1]
"#;

const INPUTS: [(&str, &str, usize); 4] =
    [("pixel", "UINT8", 2), ("count", "INT64", 1), ("score", "FP32", 3), ("text", "BYTES", 1)];

const NAMES: &str = "is not an input of the model; its inputs are `pixel`, `count`, `score`, `text`";

struct Site {
    gateway: Gateway,
    _models: TempDir,
}

/// A wrong place: pointer, code, detail.
type Wrong<'a> = (&'a str, &'a str, &'a str);

impl Site {
    async fn start() -> Self {
        let models = TempDir::new().unwrap();
        let folder = models.path().join("mixed");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("model.toml"), MODEL).unwrap();
        let gateway = Gateway::with(&[("MODELS_DIR", models.path().to_str().unwrap())]).await;
        Self { gateway, _models: models }
    }

    /// Asserts that the answer is 422 for these places and nothing else, and that nothing was stored.
    #[track_caller]
    fn refused(&self, answer: &Answer, wrong: &[Wrong<'_>]) {
        let (place, _, what) = wrong[0];
        let more = if wrong.len() > 1 { format!(" (and {} more)", wrong.len() - 1) } else { String::new() };
        invalid(wrong).assert(answer, "/predict", &format!("{place} {what}{more}"));
        assert!(self.gateway.keys().is_empty(), "{:?}", self.gateway.keys());
    }

    /// A row with these members.
    async fn row(&self, members: Value, wrong: &[Wrong<'_>]) {
        let mut row = json!({"pixel": [1, 2], "count": [3], "score": [0.5, 1.5, 2.5], "text": ["a"]});
        change(&mut row, members);
        let answer = self.gateway.predict(&json!({"data": [row]}).to_string()).await;
        self.refused(&answer, wrong);
    }

    /// Tensors as JSON; that of this index has these members.
    async fn tensor(&self, index: usize, members: Value, wrong: &[Wrong<'_>]) {
        let answer = self.gateway.predict(&with(&tensors(), index, members).to_string()).await;
        self.refused(&answer, wrong);
    }

    /// Tensors in binary form; that of this index has these members and these bytes.
    async fn raw(&self, index: usize, members: Value, bytes: &[u8], wrong: &[Wrong<'_>]) {
        let mut parts = raw();
        parts[index] = bytes.to_vec();
        let body = with(&headers(&parts), index, members);
        let answer = send_binary(&self.gateway, &body, &parts.concat()).await;
        self.refused(&answer, wrong);
    }
}

/// Sets members, and removes those that are null.
fn change(object: &mut Value, members: Value) {
    for (name, value) in members.as_object().unwrap() {
        match value {
            Value::Null => drop(object.as_object_mut().unwrap().remove(name)),
            value => object[name] = value.clone(),
        }
    }
}

fn with(body: &Value, index: usize, members: Value) -> Value {
    let mut body = body.clone();
    change(&mut body["inputs"][index], members);
    body
}

fn tensors() -> Value {
    let data = [json!([1, 2]), json!([3]), json!([0.5, 1.5, 2.5]), json!(["a"])];
    let tensor = |((name, datatype, length), data): ((&str, &str, usize), Value)| json!({"name": name, "datatype": datatype, "shape": [1, length], "data": data});
    json!({"inputs": INPUTS.into_iter().zip(data).map(tensor).collect::<Vec<_>>()})
}

/// The bytes of the same tensors.
fn raw() -> [Vec<u8>; 4] {
    let floats = [0.5_f32, 1.5, 2.5].iter().flat_map(|element| element.to_le_bytes()).collect();
    [vec![1, 2], 3_i64.to_le_bytes().to_vec(), floats, b"\x01\0\0\0a".to_vec()]
}

/// The JSON of these bytes in binary form.
fn headers(parts: &[Vec<u8>; 4]) -> Value {
    let tensor = |((name, datatype, length), part): ((&str, &str, usize), &Vec<u8>)| {
        let parameters = json!({"binary_data_size": part.len()});
        json!({"name": name, "datatype": datatype, "shape": [1, length], "parameters": parameters})
    };
    json!({"inputs": INPUTS.into_iter().zip(parts).map(tensor).collect::<Vec<_>>()})
}

#[tokio::test]
async fn the_right_tensors_are_accepted_over_each_way_in() {
    let site = Site::start().await;
    let row = json!({"data": [{"pixel": [1, 2], "count": [3], "score": [0.5, 1.5, 2.5], "text": ["a"]}]});
    for body in [row, tensors()] {
        accepted(&site.gateway.predict(&body.to_string()).await);
    }
    accepted(&send_binary(&site.gateway, &headers(&raw()), &raw().concat()).await);
    let stored = site.gateway.deliveries_of("mixed".parse().unwrap(), 0).await;
    let tensors: Vec<_> = stored
        .iter()
        .map(|delivery| tepal_shared::job::input::ResultForm::of(&delivery.input).unwrap().1)
        .collect();
    assert_eq!((tensors.len(), tensors[1], tensors[2]), (3, tensors[0], tensors[0]));
}

#[tokio::test]
async fn a_wrong_input_name() {
    let site = Site::start().await;
    site.row(
        json!({"pixel": null, "pixels": [1, 2]}),
        &[("/data/0/pixel", "missing", "is missing"), ("/data/0/pixels", "unknown_field", NAMES)],
    )
    .await;
    let wrong: &[Wrong<'_>] =
        &[("/inputs/0/name", "unknown_value", NAMES), ("/inputs", "missing", "lacks the input `pixel`")];
    site.tensor(0, json!({"name": "pixels"}), wrong).await;
    site.raw(0, json!({"name": "pixels"}), &[1, 2], wrong).await;
}

#[tokio::test]
async fn missing_and_surplus_inputs() {
    let site = Site::start().await;
    site.row(json!({"text": null}), &[("/data/0/text", "missing", "is missing")]).await;
    site.row(json!({"more": [1]}), &[("/data/0/more", "unknown_field", NAMES)]).await;

    let (mut fewer, mut more) = (tensors(), tensors());
    fewer["inputs"].as_array_mut().unwrap().pop();
    more["inputs"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "more", "datatype": "FP32", "shape": [1], "data": [1]}));
    let answer = site.gateway.predict(&fewer.to_string()).await;
    site.refused(&answer, &[("/inputs", "missing", "lacks the input `text`")]);
    let answer = site.gateway.predict(&more.to_string()).await;
    site.refused(&answer, &[("/inputs/4/name", "unknown_value", NAMES)]);

    let (mut fewer, mut more) = (headers(&raw()), headers(&raw()));
    fewer["inputs"].as_array_mut().unwrap().pop();
    let parameters = json!({"binary_data_size": 4});
    more["inputs"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "more", "datatype": "FP32", "shape": [1], "parameters": parameters}));
    let answer = send_binary(&site.gateway, &fewer, &raw()[..3].concat()).await;
    site.refused(&answer, &[("/inputs", "missing", "lacks the input `text`")]);
    let answer = send_binary(&site.gateway, &more, &[raw().concat(), vec![0; 4]].concat()).await;
    site.refused(&answer, &[("/inputs/4/name", "unknown_value", NAMES)]);
}

/// Rows have no datatype.
#[tokio::test]
async fn a_wrong_datatype() {
    let site = Site::start().await;
    let wrong: &[Wrong<'_>] = &[("/inputs/1/datatype", "datatype", "must be INT64, not INT32")];
    site.tensor(1, json!({"datatype": "INT32"}), wrong).await;
    site.raw(1, json!({"datatype": "INT32"}), &[3, 0, 0, 0], wrong).await;
}

/// Raw bytes can hold no such value.
#[tokio::test]
async fn values_that_the_datatype_cannot_hold() {
    let site = Site::start().await;
    let byte = "must be an integer from 0 to 255, and 300 is none";
    let whole = "must be an integer from -9223372036854775808 to 9223372036854775807, and 1.5 is none";
    let number = "must be a number, not a string";
    site.row(json!({"pixel": [1, 300]}), &[("/data/0/pixel/1", "not_representable", byte)]).await;
    site.row(json!({"count": [1.5]}), &[("/data/0/count/0", "not_representable", whole)]).await;
    site.row(json!({"score": [1, "a"]}), &[("/data/0/score/1", "type", number)]).await;
    site.tensor(0, json!({"data": [1, 300]}), &[("/inputs/0/data/1", "not_representable", byte)]).await;
    site.tensor(1, json!({"data": [[1.5]]}), &[("/inputs/1/data/0/0", "not_representable", whole)]).await;
    site.tensor(2, json!({"data": [1, "a", 2]}), &[("/inputs/2/data/1", "type", number)]).await;
}

#[tokio::test]
async fn a_wrong_rank() {
    let site = Site::start().await;
    site.row(json!({"count": 3}), &[("/data/0/count", "type", "must be a list of 1 values, not a number")])
        .await;
    site.row(json!({"count": [[3]]}), &[("/data/0/count/0", "type", "must be a number, not a list")]).await;
    for (shape, axes) in [(json!([1]), 1), (json!([1, 1, 1]), 3)] {
        let what = format!("must have 2 axes, as [-1, 1] says, not {axes}");
        let wrong: &[Wrong<'_>] = &[("/inputs/1/shape", "length", &what)];
        site.tensor(1, json!({"shape": shape}), wrong).await;
        site.raw(1, json!({"shape": shape}), &raw()[1], wrong).await;
    }
}

#[tokio::test]
async fn a_wrong_fixed_axis() {
    let site = Site::start().await;
    let what = "must hold exactly 2 values, not 3";
    site.row(json!({"pixel": [1, 2, 3]}), &[("/data/0/pixel", "length", what)]).await;
    let wrong: &[Wrong<'_>] = &[("/inputs/0/shape/1", "out_of_range", "must be 2, not 3")];
    site.tensor(0, json!({"shape": [1, 3], "data": [1, 2, 3]}), wrong).await;
    site.raw(0, json!({"shape": [1, 3]}), &[1, 2, 3], wrong).await;
}

/// Rows have no shape, but each list of a variable axis must have the length of the first one.
#[tokio::test]
async fn a_product_that_is_not_the_number_of_values() {
    let site = Site::start().await;
    let what = "must have 3 values, as the shape [1, 3] says, not 2";
    site.tensor(2, json!({"data": [1, 2]}), &[("/inputs/2/data", "length", what)]).await;
    let what = "must have 3 values, as the shape says, not 2";
    site.tensor(2, json!({"data": [[1, 2]]}), &[("/inputs/2/data/0", "length", what)]).await;
    let what = "must be 12, since FP32 of the shape [1, 3] has so many bytes, not 8";
    let size = "/inputs/2/parameters/binary_data_size";
    site.raw(2, json!({}), &raw()[2][..8], &[(size, "length", what)]).await;
    let what = "must have 2 elements, as the shape [2, 1] says, not 1";
    let shape = json!({"shape": [2, 1]});
    site.raw(3, shape, &raw()[3], &[("/inputs/3", "length", what)]).await;

    let row = |length: usize| json!({"pixel": [1, 2], "count": [3], "score": vec![1; length], "text": ["a"]});
    let answer = site.gateway.predict(&json!({"data": [row(3), row(2)]}).to_string()).await;
    let what = "must hold 3 values like the first list of its axis, not 2";
    site.refused(&answer, &[("/data/1/score", "length", what)]);
}

#[tokio::test]
async fn axes_that_are_negative_zero_or_overflow() {
    let site = Site::start().await;
    let from_1 = |given: &str| format!("must be a whole number from 1, not {given}");
    let huge = u64::MAX.to_string();
    for (shape, place, what) in [
        (json!([1, -1]), "/inputs/2/shape/1", from_1("-1")),
        (json!([-1, 3]), "/inputs/2/shape/0", from_1("-1")),
        (json!([1, 0]), "/inputs/2/shape/1", from_1("0")),
        (json!([0, 3]), "/inputs/2/shape/0", from_1("0")),
        (json!([1, 1.5]), "/inputs/2/shape/1", from_1("1.5")),
        (
            json!([1_u64 << 32, 1_u64 << 32]),
            "/inputs/2/shape",
            "must have at most 1073741824 elements in all".to_owned(),
        ),
        (json!([u64::MAX, 1]), "/inputs/2/shape", "must have at most 1073741824 elements in all".to_owned()),
    ] {
        assert!(!what.contains(&huge));
        let wrong: &[Wrong<'_>] = &[(place, "out_of_range", &what)];
        site.tensor(2, json!({"shape": shape}), wrong).await;
        site.raw(2, json!({"shape": shape}), &raw()[2], wrong).await;
    }
    // Rows say how long an axis is by their lists.
    let what = "must hold at least 1 value, but is empty";
    site.row(json!({"score": []}), &[("/data/0/score", "empty", what)]).await;
    let answer = site.gateway.predict(r#"{"data": []}"#).await;
    site.refused(&answer, &[("/data", "empty", "must hold 1 to 4 rows, but is empty")]);
}

/// Strings of JSON are UTF-8, and raw bytes may be anything.
#[tokio::test]
async fn strings_that_are_not_base64() {
    let site = Site::start().await;
    let base64 = |why: &str| format!("must be base64 with padding (RFC 4648, section 4): {why}");
    for (text, why) in [("/w", "Invalid padding"), ("-_==", "Invalid symbol 45, offset 0.")] {
        let what = base64(why);
        let value = json!([{"b64": text}]);
        site.row(json!({"text": value}), &[("/data/0/text/0", "invalid_base64", &what)]).await;
        site.tensor(3, json!({"data": value}), &[("/inputs/3/data/0", "invalid_base64", &what)]).await;
    }
    let what = r#"must be a string or {"b64": "..."}, not a number"#;
    site.row(json!({"text": [5]}), &[("/data/0/text/0", "type", what)]).await;
    site.tensor(3, json!({"data": [5]}), &[("/inputs/3/data/0", "type", what)]).await;
    let what =
        "must have elements with their lengths, four bytes each, but element 0 at byte 0 of 5 is incomplete";
    site.raw(3, json!({}), b"\x02\0\0\0a", &[("/inputs/3", "length", what)]).await;
}

#[tokio::test]
async fn binary_bodies_with_too_few_too_many_or_misaligned_bytes() {
    let site = Site::start().await;
    let (body, bytes) = (headers(&raw()), raw().concat());
    let size = "/inputs/3/parameters/binary_data_size";
    let what = "must be at most the raw bytes that are left, 4, not 5";
    let answer = send_binary(&site.gateway, &body, &bytes[..bytes.len() - 1]).await;
    site.refused(&answer, &[(size, "length", what)]);
    let what = "must announce all raw bytes of the body; 1 bytes follow the last tensor";
    let answer = send_binary(&site.gateway, &body, &[&bytes[..], b"."].concat()).await;
    site.refused(&answer, &[("/inputs", "length", what)]);
    let what = "must be 12, since FP32 of the shape [1, 3] has so many bytes, not 11";
    site.raw(2, json!({}), &raw()[2][..11], &[("/inputs/2/parameters/binary_data_size", "length", what)])
        .await;
}
