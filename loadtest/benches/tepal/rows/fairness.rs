//! A model with one job a second beside a saturated one in the same worker, whose calls take 50 ms: in process, or on a server.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tepal_shared::job::NewJob;
use tepal_shared::tensor::{DataType, stored};
use tepal_tests::model_server::{ModelServer, ServerSpec, TensorSpec};
use tepal_tests::redis::RedisServer;

use super::latency::{Latencies, Via, open_loop};
use super::{Detail, Measured, Row, Target, say};
use crate::series::Series;
use crate::{Scale, parts, queue::Queue};

const PER_SECOND: f64 = 1.0;
const CALL: Duration = Duration::from_millis(50);
/// More calls than any worker makes in a second.
const MOST_CALLS: usize = 250;
/// Length of an input from which the length for a call of 50 ms is estimated.
const PROBE: usize = 100;
const SLOW_ONNX: &[u8] = include_bytes!("../slow/model.onnx");
/// What the model server says of `slow`, for the folder.
const SLOW_TOML: &str = r#"version = "1"
max_batch = 1
inputs = [{ name = "steps", datatype = "FP32", shape = [1] }]
outputs = [{ name = "mean", datatype = "FP32", shape = [1] }]
"#;

/// Where the saturated model runs.
#[derive(Clone, Copy)]
enum Place {
    InProcess,
    OnServer,
}

/// The latencies of the other model, one value a round.
#[derive(Default)]
struct Measurement {
    alone: [Series; 2],
    beside: [Series; 2],
    saturated: Series,
}

pub(super) async fn measure(measured: &mut Measured, scale: Scale) {
    let mut lines = Vec::new();
    for place in [Place::InProcess, Place::OnServer] {
        let found = place.measure(scale).await;
        let [_, alone] = &found.alone;
        let [_, beside] = &found.beside;
        let what = format!("one job/s beside a saturated model with calls of 50 ms {}, p99", place.name());
        measured.rows.push(Row::ratio(&what, alone.clone(), beside.clone(), "ms", Target::AtMost(2.0)));
        let figures = found.alone.iter().chain(&found.beside).chain([&found.saturated]);
        lines
            .push(std::iter::once(place.name().to_owned()).chain(figures.map(ToString::to_string)).collect());
    }
    measured.details.push(Detail {
        title: "Two models in one worker",
        text: "One worker with its default settings. Iris, in process, has one job a second. The other model has a backlog, and one job \
               a call. Latencies of Iris from submission to stored result, in milliseconds, without and with the backlog."
            .to_owned(),
        head: vec!["the other model", "alone p50", "alone p99", "beside p50", "beside p99", "calls/s of the other"],
        lines,
    });
}

impl Place {
    fn name(self) -> &'static str {
        match self {
            Self::InProcess => "in process",
            Self::OnServer => "on a server",
        }
    }

    async fn measure(self, scale: Scale) -> Measurement {
        let redis = parts::redis().await;
        let queue = Arc::new(Queue::of(&redis).await);
        let (models, server) = (self.repository(), ModelServer::start(slow_server()).await);
        let _worker = worker(&redis, models.path(), &server).await;
        let input = self.input(&queue).await;
        let via = Via::Store(Arc::clone(&queue));
        let (length, mut found) = (scale.length * 4, Measurement::default());
        let note = |round, what: &str, latencies: &Latencies, series: &mut [Series; 2]| {
            for (share, series) in [0.5, 0.99].into_iter().zip(series) {
                let value = latencies.percentile(share);
                say(round, &format!("{what}, {}, p{}", self.name(), share * 100.0), value, "ms");
                series.push(value);
            }
        };
        open_loop(&redis, &via, 5.0, Duration::from_secs(2)).await;
        for round in 0..scale.rounds {
            let latencies = open_loop(&redis, &via, PER_SECOND, length).await;
            note(round, "alone", &latencies, &mut found.alone);
            queue.fill_with(&job(&input), (length.as_secs_f64() + 10.0) as usize * MOST_CALLS).await;
            let before = queue.waiting_of("slow").await;
            let latencies = open_loop(&redis, &via, PER_SECOND, length).await;
            let after = queue.waiting_of("slow").await;
            assert!(after > 0, "the backlog was too short");
            note(round, "beside", &latencies, &mut found.beside);
            found.saturated.push((before - after) as f64 / length.as_secs_f64());
            queue.cancel_all("slow").await;
        }
        found
    }

    /// Iris, and the other model.
    fn repository(self) -> TempDir {
        let models = tempfile::tempdir().expect("a temporary folder");
        let add = |name: &str, files: &[(&str, &[u8])]| {
            let folder = models.path().join(name);
            std::fs::create_dir(&folder).expect("a new folder");
            files.iter().for_each(|(file, bytes)| {
                std::fs::write(folder.join(file), bytes).expect("a file in it");
            });
        };
        let iris = parts::repository().join("compose/models/iris");
        let [description, model] =
            ["model.toml", "model.onnx"].map(|file| std::fs::read(iris.join(file)).expect("a file of iris"));
        add("iris", &[("model.toml", &description), ("model.onnx", &model)]);
        match self {
            Self::InProcess => add("slow", &[("model.onnx", SLOW_ONNX)]),
            Self::OnServer => {
                let served = format!("{SLOW_TOML}\n[serving]\nbackend = \"tensorflow_serving\"\n");
                add("slow", &[("model.toml", served.as_bytes())]);
            }
        }
        models
    }

    /// An input whose call takes 50 ms.
    async fn input(self, queue: &Queue) -> Vec<u8> {
        match self {
            Self::OnServer => stored_input(&[1, 1]),
            Self::InProcess => {
                let mut steps = PROBE;
                for _ in 0..3 {
                    steps =
                        (steps as f64 * CALL.as_secs_f64() * 1_000.0 / call_ms(queue, steps).await) as usize;
                    steps = steps.max(1);
                }
                println!("  a call of {} ms has {steps} steps", CALL.as_millis());
                stored_input(&[steps])
            }
        }
    }
}

/// How long a call takes, ms: the shortest of some. The first ones also prepare the graph for this length.
async fn call_ms(queue: &Queue, steps: usize) -> f64 {
    let mut shortest = f64::INFINITY;
    for _ in 0..6 {
        shortest = queue.run_time_ms(&job(&stored_input(&[steps]))).await.min(shortest);
    }
    shortest.max(1.0)
}

fn job(input: &[u8]) -> NewJob {
    NewJob::new("slow".parse().expect("a valid name"), input.to_vec())
}

/// A tensor of ones.
fn stored_input(shape: &[usize]) -> Vec<u8> {
    let ones = vec![1.0_f32; shape.iter().product()];
    let data: Vec<u8> = ones.into_iter().flat_map(f32::to_le_bytes).collect();
    let mut bytes = Vec::new();
    stored::append(&mut bytes, DataType::Fp32, shape, &data);
    bytes
}

fn slow_server() -> ServerSpec {
    ServerSpec {
        model: "slow".to_owned(),
        version: 1,
        inputs: vec![TensorSpec::new("steps", &[1])],
        output: TensorSpec::new("mean", &[1]),
        compute: Arc::new(<[f32]>::to_vec),
        call_cost: CALL,
        ..ServerSpec::iris()
    }
}

async fn worker(redis: &RedisServer, models: &Path, server: &ModelServer) -> parts::Served {
    let (models, port) = (models.display().to_string(), server.addr().port().to_string());
    let env = [
        ("MODELS_DIR", models.as_str()),
        ("MODEL_NAME", "iris"),
        ("TF_SERVING_GRPC_PORT", port.as_str()),
        ("NUM_WORKERS", "2"),
    ];
    parts::worker(redis, &env).await
}
