//! Entry points for the fuzz targets in `tests/fuzz`: everything that reads bytes of clients, with what must hold for any bytes.
//! A unit test runs the committed seeds through the same functions.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is a finding")]

use std::{
    net::IpAddr,
    path::Path,
    sync::{Arc, LazyLock},
    time::Duration,
};

use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri};
use serde_json::{Value, json};
use tepal_shared::{
    json::{Json, JsonRef},
    model::{JobInput, Model},
    tensor::{DataType, Element as _, View, pointer::Pointer, tensorflow_json},
};

use crate::{
    edge::request_id,
    error::{ApiError, MOST_BYTES, MOST_MISTAKES},
    fronts::{
        rest::{batch::MOST as MOST_JOBS, fuzzing as rest, lookup::MOST as MOST_IDS},
        tf_serving::fuzzing::{PredictRequest, Verb},
        v2,
    },
    http::{
        accept,
        budget::Meter,
        connections::heads::Scanner,
        headers, json,
        peer::{Peer, TrustedProxies, address_in},
        prefer,
    },
    jobs::{
        models::{Registry, Served},
        submission::{LONGEST_SECONDS, Submission},
    },
    secret::Keys,
};

static IRIS: LazyLock<Arc<Served>> = LazyLock::new(|| {
    let models = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../compose/models"));
    Arc::new(Served::new("iris".parse().unwrap(), Model::load(models, "iris").unwrap()))
});
static MODELS: LazyLock<Registry> = LazyLock::new(|| Registry::new([Arc::clone(&IRIS)], None));
/// For each datatype a model with one input of it, of any length, and a model with two inputs.
static TYPED: LazyLock<Vec<Arc<Served>>> = LazyLock::new(|| {
    let input = |name: &str, datatype: DataType, shape: Value| json!({"name": name, "datatype": datatype.as_str(), "shape": shape, "features": []});
    let of_one = DataType::ALL.into_iter().map(|datatype| json!([input("x", datatype, json!([-1]))]));
    let two = json!([input("a", DataType::Bytes, json!([])), input("b", DataType::Int64, json!([-1, 2]))]);
    let models = of_one.chain([two]).map(|inputs| {
        let mut model: Value = serde_json::from_str(&IRIS.description.published()).unwrap();
        (model["inputs"], model["sample"]) = (inputs, Value::Null);
        Model::from_published(&model.to_string()).unwrap()
    });
    models.map(|model| Arc::new(Served::new("m".parse().unwrap(), model))).collect()
});
static KEYS: LazyLock<Keys> = LazyLock::new(|| Keys::derive(&[7; 32]).unwrap());
static TRUSTED: LazyLock<TrustedProxies> =
    LazyLock::new(|| ["10.0.0.0/8", "fd00::/8"].map(|net| net.parse().unwrap()).into_iter().collect());

/// The body of `POST /predict`.
pub fn submission(body: &[u8]) {
    let outcome = json::parse(body, &mut Meter::off()).and_then(read);
    check(&outcome);
}

fn read(body: Json) -> Result<Submission, ApiError> {
    let model = MODELS.of_body(&body)?;
    Submission::read(&body, &model).map_err(ApiError::Invalid)
}

/// The body of `POST /predict` for a model that the first byte chooses.
pub fn rows(bytes: &[u8]) {
    let Some((choice, body)) = bytes.split_first() else { return };
    let model = &TYPED[usize::from(*choice) % TYPED.len()];
    let read = |body: Json| Submission::read(&body, model).map_err(ApiError::Invalid);
    match json::parse(body, &mut Meter::off()).and_then(read) {
        Ok(submission) => {
            check_stored(&model.description, &submission);
        }
        Err(error) => check_error(&error),
    }
}

/// The body of `POST /predict` in binary form. The first line is the value of the header.
pub fn binary_submission(bytes: &[u8]) {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return };
    let Ok(length) = HeaderValue::from_bytes(&bytes[..end]) else { return };
    let model_of = |body: Option<JsonRef<'_>>| Ok(MODELS.of_body(body.unwrap_or(JsonRef::Null))?);
    let read = rest::read_binary(&length, &bytes[end + 1..], &mut Meter::off(), model_of);
    check(&read.map_err(|refused| refused.error));
}

/// The message of an inference over gRPC, for a model that the first byte chooses.
pub fn grpc_infer(bytes: &[u8]) {
    let Some((choice, message)) = bytes.split_first() else { return };
    let model = &TYPED[usize::from(*choice) % TYPED.len()];
    match v2::fuzzing::grpc_infer(message, model) {
        Ok(submission) => drop(check_stored(&model.description, &submission)),
        Err(error) => check_error(&error),
    }
}

/// The body of a prediction or a classification of TensorFlow Serving's REST API, for a model that the first byte chooses. The tensors
/// of an accepted one are read again from the text that an answer with them has, in both forms.
pub fn tensorflow_request(bytes: &[u8]) {
    let Some((choice, body)) = bytes.split_first() else { return };
    let choice = usize::from(*choice);
    let model = if choice >= 128 { &IRIS } else { &TYPED[choice % TYPED.len()] };
    let verb = if choice.is_multiple_of(2) { Verb::Predict } else { Verb::Classify };
    let read = |body: Json| PredictRequest::read((&body).into(), verb, model).map_err(ApiError::Invalid);
    match json::parse(body, &mut Meter::off()).and_then(read) {
        Ok(request) => check_again(&model.description, check_stored(&model.description, &request.submission)),
        Err(error) => check_error(&error),
    }
}

fn check_again(model: &Model, read: JobInput) {
    let views = model.inputs.iter().zip(&read.tensors).map(|(input, tensor)| View {
        name: &input.name,
        datatype: input.datatype,
        shape: tensor.shape.clone(),
        data: &tensor.data,
    });
    let views: Vec<View<'_>> = views.collect();
    let (mut rows, mut columns) = (Vec::new(), Vec::new());
    tensorflow_json::write_rows(&views, tensorflow_json::rows(&views).unwrap(), &mut rows).unwrap();
    tensorflow_json::write_columns(&views, &mut columns).unwrap();
    let value = |text: &[u8]| serde_json::from_slice::<Value>(text).unwrap();
    assert_eq!(model.read_instances(&value(&rows), Pointer::ROOT).unwrap(), read);
    assert_eq!(model.read_columns(&value(&columns), Pointer::ROOT).unwrap(), read);
}

/// The body of `POST /predict/batch`, in both its forms.
pub fn batch(body: &[u8]) {
    for outcome in
        [rest::elements(body, &MODELS, &mut Meter::off()), rest::lines(body, &MODELS, &mut Meter::off())]
    {
        match outcome {
            Ok(items) => {
                assert!((1..=MOST_JOBS).contains(&items.len()));
                for item in items {
                    check(&item.map_err(|refused| refused.error));
                }
            }
            Err(error) => check_error(&error),
        }
    }
}

/// The body of `POST /jobs/lookup`.
pub fn lookup(body: &[u8]) {
    match json::parse(body, &mut Meter::off()) {
        Ok(body) => match rest::names(&body) {
            Ok(names) => assert!((1..=MOST_IDS).contains(&names.len())),
            Err(mistake) => check_error(&ApiError::Invalid(vec![mistake])),
        },
        Err(error) => check_error(&error),
    }
}

/// A body for any operation. The size of its answer is bounded by the size of the body.
pub fn ratio(body: &[u8]) {
    let errors = [
        json::parse(body, &mut Meter::off()).and_then(read).err(),
        json::parse(body, &mut Meter::off())
            .and_then(|parsed| match rest::names(&parsed) {
                // The answer repeats the ids that name no job.
                Ok(names) => {
                    let repeated = Value::from(names).to_string().len();
                    assert!(repeated <= 2 * body.len(), "{repeated}");
                    Ok(())
                }
                Err(mistake) => Err(ApiError::Invalid(vec![mistake])),
            })
            .err(),
    ];
    errors.iter().flatten().for_each(check_error);
    let read: [fn(&[u8], &Registry, &mut Meter) -> _; 2] = [rest::elements, rest::lines];
    for items in read.into_iter().filter_map(|read| read(body, &MODELS, &mut Meter::off()).ok()) {
        let most = MOST_BYTES + rest::BYTES_A_JOB * items.len();
        let answer = rest::answer_to(items);
        assert!(answer.len() <= most, "{} bytes", answer.len());
    }
}

/// A cursor of `GET /jobs`: any position can be sealed and opened.
pub fn cursor(place: &[u8]) {
    if let Some(place) = place.first_chunk() {
        rest::cursor_round_trip(&KEYS.cursors, *place);
    }
}

/// The body of an inference of the Open Inference Protocol. The first line is the value of the header, or empty without it.
pub fn infer(bytes: &[u8]) {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return };
    let (line, body) = (&bytes[..end], &bytes[end + 1..]);
    let Ok(length) = HeaderValue::from_bytes(line) else { return };
    let length = (!line.is_empty()).then_some(&length);
    match v2::fuzzing::read(body, length, &IRIS) {
        Ok(submission) => check_accepted(&submission),
        Err(error) => check_error(&error),
    }
    for model in TYPED.iter() {
        match v2::fuzzing::read(body, length, model) {
            Ok(submission) => drop(check_stored(&model.description, &submission)),
            Err(error) => check_error(&error),
        }
    }
}

/// The query of `GET /jobs`, its cursor included.
pub fn listing(query: &[u8]) {
    let Ok(uri) = Uri::try_from([b"/jobs?", query].concat()) else { return };
    if let Err(mistakes) = rest::check_listing(&uri, &KEYS.cursors) {
        assert!(!mistakes.is_empty());
        check_error(&ApiError::Invalid(mistakes));
    }
}

/// An accepted submission follows the rules that the worker relies on, and the worker reads it as the proxy did.
fn check(outcome: &Result<Submission, ApiError>) {
    match outcome {
        Ok(submission) => check_accepted(submission),
        Err(error) => check_error(error),
    }
}

fn check_stored(model: &Model, submission: &Submission) -> JobInput {
    let (read, form) = model.read_job(&submission.input).unwrap();
    assert!((1..=1024).contains(&read.rows) && read.rows == submission.rows);
    assert_eq!(form.with(model.stored(&read)), submission.input);
    read
}

fn check_accepted(submission: &Submission) {
    let read = check_stored(&IRIS.description, submission);
    let [input] = read.tensors.as_slice() else { panic!("{:?}", read.tensors) };
    assert_eq!((&input.shape[..], input.data.len()), (&[read.rows, 4][..], 4 * size_of::<f32>() * read.rows));
    assert!(f32::all(&input.data).all(|value| value > 0.0 && value < 10.0));
    let limits = Duration::from_millis(1)..=Duration::from_secs(LONGEST_SECONDS.into());
    assert!([submission.max_queue, submission.timeout].iter().flatten().all(|limit| limits.contains(limit)));
}

/// An error is a problem of the documented form and of bounded size.
fn check_error(error: &ApiError) {
    let text = error.problem("/predict", "r-1");
    let problem: Value = serde_json::from_slice(&text).unwrap();
    assert!((400..500).contains(&error.status()), "{problem}");
    assert_eq!(problem["status"], error.status());
    assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
    assert!(text.len() <= MOST_BYTES, "{} bytes", text.len());
    if let ApiError::Invalid(mistakes) = error {
        assert!((1..=MOST_MISTAKES).contains(&mistakes.len()));
        // The answer shows as many mistakes as fit.
        let shown = problem["errors"].as_array().map_or(0, Vec::len);
        assert!((1..=mistakes.len()).contains(&shown), "{shown}");
    }
}

/// One header line for each line of the input.
fn headers(name: &'static str, lines: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in lines.split(|byte| *byte == b'\n').take(100) {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(HeaderName::from_static(name), value);
        }
    }
    headers
}

/// `Prefer`.
pub fn prefer(lines: &[u8]) {
    let wait = prefer::wait(&headers("prefer", lines));
    if let Some(wait) = wait {
        assert!(wait <= prefer::LONGEST_WAIT);
        // `Preference-Applied` reads as the wait that was granted.
        let mut answer = HeaderMap::new();
        prefer::mark_applied(&mut answer, wait);
        let applied = answer.get("preference-applied").map_or(&b""[..], HeaderValue::as_bytes);
        assert_eq!(prefer::wait(&headers("prefer", applied)), Some(wait));
    }
}

/// `Accept`.
pub fn accept(lines: &[u8]) {
    let headers = headers("accept", lines);
    let takes_json = accept::takes(&headers, "application", "json");
    if accept::prefers_events(&headers) {
        assert!(accept::takes(&headers, "text", "event-stream"));
    }
    // A client that accepts everything accepts JSON, and the order of lines does not matter.
    let mut backwards = HeaderMap::new();
    let mut values: Vec<_> = headers.get_all("accept").into_iter().cloned().collect();
    values.reverse();
    values.into_iter().for_each(|value| {
        backwards.append("accept", value);
    });
    assert_eq!(accept::takes(&backwards, "application", "json"), takes_json);
}

/// `X-Forwarded-For`.
pub fn forwarded_for(lines: &[u8]) {
    let headers = headers("x-forwarded-for", lines);
    let (stranger, proxy) = ([192, 0, 2, 1].into(), Peer([10, 0, 0, 1].into()));
    assert_eq!(TRUSTED.origin(Peer(stranger), &headers), stranger);
    let origin = TRUSTED.origin(proxy, &headers);
    assert_eq!(origin, origin.to_canonical());
    assert_eq!(address_in(&origin.to_string()), Some(origin));
    // Hops before that of a proxy do not matter.
    let mut more = headers.clone();
    more.append(HeaderName::from_static("x-forwarded-for"), HeaderValue::from_static("198.51.100.7"));
    assert_eq!(TRUSTED.origin(proxy, &more), IpAddr::from([198, 51, 100, 7]));
}

/// The bytes of a connection: heads are found in them however they are cut.
pub fn heads(bytes: &[u8]) {
    let whole = Scanner::default().scan(bytes);
    for size in [1, 2, 7, 64] {
        let mut scanner = Scanner::default();
        let found = bytes.chunks(size).enumerate().try_for_each(|(number, piece)| {
            scanner.scan(piece).map_err(|(at, fault)| (number * size + at, fault))
        });
        assert_eq!(found, whole, "in pieces of {size}");
    }
}

/// `traceparent`, and the ids that travel beside it.
pub fn traceparent(value: &[u8]) {
    let headers = headers("traceparent", value);
    if let Some(kept) = headers::traceparent(&headers) {
        assert!(headers::is_visible_ascii(kept.as_bytes(), headers::LONGEST_TRACEPARENT));
        assert!(headers::is_traceparent(&kept));
        assert_eq!(kept.split('-').map(str::len).take(4).collect::<Vec<_>>(), [2, 32, 16, 2]);
    }
    let id = request_id::choose(&self::headers("x-request-id", value));
    assert!(headers::is_visible_ascii(id.as_bytes(), 128));
}

#[cfg(test)]
mod tests {
    use tepal_tests::seeds::replay;

    use super::*;

    #[test]
    fn the_seeds_of_the_fuzz_targets_pass() {
        replay("submission", submission);
        replay("rows", rows);
        replay("binary_submission", binary_submission);
        replay("infer", infer);
        replay("grpc_infer", grpc_infer);
        replay("batch", batch);
        replay("tensorflow_request", tensorflow_request);
        replay("lookup", lookup);
        replay("ratio", ratio);
        replay("listing", listing);
        replay("cursor", cursor);
        replay("prefer", prefer);
        replay("accept", accept);
        replay("forwarded_for", forwarded_for);
        replay("heads", heads);
        replay("traceparent", traceparent);
    }
}
