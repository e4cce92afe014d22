//! Large inputs: what one costs a client and Redis, and what uploads cost other clients.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use serde_json::json;
use tempfile::TempDir;
use tepal_tests::http::{Client, Method};
use tepal_tests::redis::RedisServer;
use tokio::runtime::Builder;
use tokio::time::interval;

use super::{Measured, Row, Target, say};
use crate::series::Series;
use crate::{Scale, parts, queue::Queue};

/// Values of an image.
const VALUES: usize = 3 * 224 * 224;
/// Bytes of an image as FP32.
const RAW: usize = VALUES * size_of::<f32>();
/// A model of a server, of which the proxy needs only the description.
const IMAGE_TOML: &str = r#"version = "1"
max_batch = 8
inputs = [{ name = "image", datatype = "FP32", shape = [3, 224, 224] }]
outputs = [{ name = "scores", datatype = "FP32", shape = [2] }]

[serving]
backend = "tensorflow_serving"
"#;
const UPLOADERS: usize = 2;
/// Another address of this machine than that of the uploaders: clients are served by their address.
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// How often another client asks for a job.
const ASK_EVERY: Duration = Duration::from_millis(10);

pub(super) async fn measure(measured: &mut Measured, scale: Scale) {
    let redis = parts::redis().await;
    let queue = Queue::of(&redis).await;
    let models = repository();
    let folder = models.path().display().to_string();
    let proxy = parts::proxy_with(&redis, &[("MODELS_DIR", &folder), ("MODEL_NAME", "image")]).await;
    let client = Client::new(&proxy.url);
    submitting(measured, scale, &redis, &queue, &client).await;
    uploading(measured, scale, &queue, &proxy.url).await;
}

/// One image after the other in binary form, and how it is stored.
async fn submitting(
    measured: &mut Measured,
    scale: Scale,
    redis: &RedisServer,
    queue: &Queue,
    client: &Client,
) {
    let (length, body) = binary();
    let headers = [("inference-header-content-length", length.as_str())];
    let [mut submit, mut input, mut memory] = [const { Series::new() }; 3];
    for round in 0..scale.rounds {
        let (end, mut times, mut id) = (Instant::now() + scale.length, Vec::new(), String::new());
        while Instant::now() < end {
            let begun = Instant::now();
            let answer = client.request(Method::POST, "/predict", &headers, body.clone()).await;
            times.push(begun.elapsed().as_secs_f64() * 1_000.0);
            assert_eq!(answer.status, 202, "{}", answer.text());
            id = answer.json()["job_id"].as_str().expect("a job id").to_owned();
        }
        let p50 = percentile(times, 0.5);
        say(round, "an image in binary form, p50", p50, "ms");
        submit.push(p50);
        let key = format!("{{predict_queue:0}}:job:{id}");
        let bytes = |command: &[&str]| redis.cli(command).parse::<f64>().expect("a number of bytes");
        input.push(bytes(&["HSTRLEN", &key, "input"]) - RAW as f64);
        // By default it looks at five of the fields, and estimates the sixth.
        memory.push(bytes(&["MEMORY", "USAGE", &key, "SAMPLES", "0"]) / RAW as f64);
        queue.clear().await;
    }
    let image = "an image of 3x224x224 FP32";
    measured.rows.extend([
        Row::value(
            &format!("`POST /predict` of {image} in binary form, one connection, p50"),
            submit,
            "ms",
            Target::AtMost(3.0),
        ),
        Row::value(
            &format!("stored input of {image}, beyond its raw bytes"),
            input,
            "bytes",
            Target::AtMost(256.0),
        ),
        Row::value(
            &format!("memory of a waiting job with {image}, over its raw bytes"),
            memory,
            "",
            Target::AtMost(1.1),
        ),
    ]);
}

/// Another client beside clients that submit images as JSON.
async fn uploading(measured: &mut Measured, scale: Scale, queue: &Queue, url: &str) {
    let body = Bytes::from(text());
    let megabytes = body.len() as f64 / 1e6;
    let [mut alone, mut beside] = [const { Series::new() }; 2];
    for round in 0..scale.rounds {
        let client = Client::from_address(url, OTHER.into());
        let answer = client.post_raw("/predict", body.clone()).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        let path = format!("/job/{}", answer.json()["job_id"].as_str().expect("a job id"));
        for (what, uploaders, series) in
            [("alone", 0, &mut alone), ("beside uploads", UPLOADERS, &mut beside)]
        {
            let stop = Arc::new(AtomicBool::new(false));
            let uploads: Vec<_> = (0..uploaders).map(|_| upload(url, &body, &stop)).collect();
            let p99 = percentile(ask(&client, &path, scale.length * 2).await, 0.99);
            stop.store(true, Ordering::Relaxed);
            uploads.into_iter().for_each(|thread| thread.join().expect("an uploader does not panic"));
            say(round, &format!("GET /job {what}, p99"), p99, "ms");
            series.push(p99);
        }
        queue.clear().await;
    }
    let what =
        format!("`GET /job/{{id}}` beside {UPLOADERS} clients that upload {megabytes:.0} MB of JSON, p99");
    measured.rows.push(Row::ratio(&what, alone, beside, "ms", Target::AtMost(2.0)));
}

/// A client that uploads until it must stop. Its thread serves no other client, whose times would hold the time that it takes to
/// send the body.
fn upload(url: &str, body: &Bytes, stop: &Arc<AtomicBool>) -> JoinHandle<()> {
    let (url, body, stop) = (url.to_owned(), body.clone(), Arc::clone(stop));
    std::thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let client = Client::new(&url);
            while !stop.load(Ordering::Relaxed) {
                let answer = client.post_raw("/predict", body.clone()).await;
                assert_eq!(answer.status, 202, "{}", answer.text());
            }
        });
    })
}

/// Asks for a job regularly. Returns the times of the answers from when they were due, ms.
async fn ask(client: &Client, path: &str, length: Duration) -> Vec<f64> {
    let (end, mut due, mut times) = (Instant::now() + length, interval(ASK_EVERY), Vec::new());
    while Instant::now() < end {
        let intended = due.tick().await;
        let answer = client.get(path).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        times.push(intended.elapsed().as_secs_f64() * 1_000.0);
    }
    times
}

fn percentile(mut times: Vec<f64>, share: f64) -> f64 {
    times.sort_by(f64::total_cmp);
    times[((times.len() as f64 * share) as usize).min(times.len() - 1)]
}

fn repository() -> TempDir {
    let models = tempfile::tempdir().expect("a temporary folder");
    let folder = models.path().join("image");
    std::fs::create_dir(&folder).expect("a new folder");
    std::fs::write(folder.join("model.toml"), IMAGE_TOML).expect("a file in it");
    models
}

/// The values of an image.
fn values() -> impl Iterator<Item = f32> {
    (0..VALUES).map(|number| (number % 255) as f32 / 255.0)
}

/// The image in binary form, after the length of its JSON.
fn binary() -> (String, Bytes) {
    let tensor = json!({
        "name": "image",
        "datatype": "FP32",
        "shape": [1, 3, 224, 224],
        "parameters": {"binary_data_size": RAW},
    });
    let mut body = json!({ "inputs": [tensor] }).to_string().into_bytes();
    let length = body.len().to_string();
    body.extend(values().flat_map(f32::to_le_bytes));
    (length, body.into())
}

/// The image as JSON, with all digits of a double.
fn text() -> String {
    let values: Vec<f64> = values().map(f64::from).collect();
    json!({"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 3, 224, 224], "data": values}]})
        .to_string()
}
