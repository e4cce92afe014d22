//! A busy model beside idle ones in the same worker, and what idle models cost Redis.

use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use super::{Measured, Row, Target, say};
use crate::series::Series;
use crate::{Scale, parts, queue::Queue};

const MODELS: usize = 20;
/// Time for a worker to start.
const SETTLED: Duration = Duration::from_secs(3);
/// Tasks that submit at once.
const TASKS: usize = 64;

pub(super) async fn measure(measured: &mut Measured, scale: Scale) {
    let models = copies_of_iris();
    let folder = models.path().display().to_string();
    draining(measured, scale, &folder).await;
    idling(measured, scale, &folder).await;
}

/// Commands that an idle worker sends. Those of scripts do not count.
async fn idling(measured: &mut Measured, scale: Scale, folder: &str) {
    let redis = parts::redis().await;
    let [mut few, mut many] = [const { Series::new() }; 2];
    for round in 0..scale.rounds {
        for (served, workers, rates) in [("iris", "2", &mut few), ("", "8", &mut many)] {
            let env = [
                ("MODELS_DIR", folder),
                ("MODEL_NAME", "iris"),
                ("MODELS", served),
                ("NUM_WORKERS", workers),
            ];
            let _worker = parts::worker(&redis, &env).await;
            // The first search for due jobs, and all groups.
            tokio::time::sleep(SETTLED).await;
            let monitor = redis.monitor();
            tokio::time::sleep(scale.length * 2).await;
            let sent = monitor.executed().iter().filter(|command| !command.is_in_script).count();
            let rate = sent as f64 / (scale.length * 2).as_secs_f64();
            say(round, &format!("idle, NUM_WORKERS={workers}"), rate, "commands/s");
            rates.push(rate);
        }
    }
    let what =
        format!("commands of an idle worker with {MODELS} models and NUM_WORKERS=8, over one model and 2");
    measured.rows.push(Row::ratio(&what, few, many, "/s", Target::AtMost(1.1)));
}

async fn draining(measured: &mut Measured, scale: Scale, folder: &str) {
    let redis = parts::redis().await;
    let queue = Queue::of(&redis).await;
    let [mut alone, mut beside] = [const { Series::new() }; 2];
    for round in 0..scale.rounds {
        for (served, rates) in [("iris", &mut alone), ("", &mut beside)] {
            queue.fill(scale.jobs, TASKS).await;
            let env = [("MODELS_DIR", folder), ("MODEL_NAME", "iris"), ("MODELS", served)];
            let worker = parts::worker(&redis, &env).await;
            let rate = queue.drained().await.per_second();
            drop(worker);
            queue.clear().await;
            say(
                round,
                if served.is_empty() { "draining, 20 models" } else { "draining, one model" },
                rate,
                "/s",
            );
            rates.push(rate);
        }
    }
    let what = format!("one worker draining a backlog beside {} idle models, over without them", MODELS - 1);
    measured.rows.push(Row::ratio(&what, alone, beside, "/s", Target::AtLeast(0.97)));
}

/// A repository of Iris under as many names.
fn copies_of_iris() -> TempDir {
    let models = tempfile::tempdir().expect("a temporary folder");
    let iris = parts::repository().join("compose/models/iris");
    let description = std::fs::read_to_string(iris.join("model.toml")).expect("the description of iris");
    for number in 0..MODELS {
        let name = if number == 0 { "iris".to_owned() } else { format!("idle-{number}") };
        let named = description.replacen(r#"name = "iris""#, &format!("name = {name:?}"), 1);
        add(models.path(), &name, &iris, &named);
    }
    models
}

fn add(models: &Path, name: &str, iris: &Path, description: &str) {
    let folder = models.join(name);
    std::fs::create_dir(&folder).expect("a new folder");
    std::fs::write(folder.join("model.toml"), description).expect("a file in it");
    std::fs::copy(iris.join("model.onnx"), folder.join("model.onnx")).expect("another file in it");
}
