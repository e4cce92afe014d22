//! The model in the worker's own process.

use std::path::Path;

use serde_json::{Map, Value, json};
use tepal_shared::{
    job::{JobResult, NewJob, input::ResultForm},
    queue::heartbeat::BackendState,
    tensor::{DataType, Element as _},
};

use crate::{
    flowers::{classify_all, input, input_of_rows},
    queue::{Queue, SOON, new_job, result_of, stored},
    settings::{Settings, TOY_MODELS},
};

fn names(object: &Value) -> Vec<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

#[tokio::test]
async fn all_flowers_get_their_classes_alone_and_as_one_job() {
    let queue = Queue::start().await;
    let _worker = queue.worker(Settings::onnx()).await;

    let (single, together) = classify_all(&queue).await;

    assert_eq!(names(&single), ["prediction", "class_name", "probabilities"]);
    assert_eq!(names(&together), ["prediction", "class_name", "probabilities", "predictions"]);
    for prediction in together["predictions"].as_array().unwrap() {
        assert_eq!(names(prediction), ["prediction", "class_name", "probabilities"]);
    }
    queue.assert_drained().await;
}

#[tokio::test]
async fn a_job_gets_its_own_rows_of_the_outputs_that_it_asks_for() {
    let queue = Queue::start().await;
    let outputs = |names: &[&str]| ResultForm::Outputs(names.iter().map(|name| (*name).to_owned()).collect());
    let mut ids = Vec::new();
    for form in [outputs(&[]), outputs(&["output"]), outputs(&["scores"])] {
        let job = NewJob { input: form.with(stored(&input_of_rows(2))), ..new_job(input(5.1)) };
        ids.push(queue.submit_job(0, job).await);
    }
    let rows = queue.submit(input(5.1)).await;

    let _worker = queue.worker(Settings::onnx()).await;

    for id in &ids[..2] {
        let Some(JobResult::Tensors(tensors)) = queue.completed(*id).await.result else { panic!("{id}") };
        let [tensor] = tensors.as_slice() else { panic!("{tensors:?}") };
        let found = (tensor.name.as_str(), tensor.datatype, tensor.shape.as_slice());
        assert_eq!(found, ("output", DataType::Fp32, &[2, 3][..]));
        let sums = f32::all(&tensor.data)
            .collect::<Vec<_>>()
            .chunks(3)
            .map(|row| row.iter().sum::<f32>())
            .collect::<Vec<_>>();
        assert!(sums.iter().all(|sum| (sum - 1.0).abs() < 1e-3), "{sums:?}");
    }
    let (error, code, _) = queue.failed(ids[2]).await;
    assert!(error.ends_with("it asks for the output `scores`, which the model does not have"), "{error}");
    assert_eq!(code, "invalid_input");
    assert_eq!(result_of(&queue.completed(rows).await)["class_name"], "setosa");
}

#[tokio::test]
async fn a_job_can_be_read_with_redis_cli_and_expires_a_day_after_its_end() {
    let queue = Queue::start().await;
    let id = queue.submit(input(5.1)).await;
    let before = queue.hash(id);
    assert_eq!(Vec::from_iter(before.keys()), ["at", "entry", "input", "m", "status"]);
    assert_eq!(before["status"], "pending");
    let key = queue.store.queue.keys().job(id);
    assert_eq!(queue.redis.cli(&["HSTRLEN", &key, "input"]), "19", "a row as text has as many bytes");
    assert_eq!(queue.ttl(id), -1);

    let _worker = queue.worker(Settings::onnx()).await;
    let job = queue.completed(id).await;

    let after = queue.hash(id);
    let fields = ["at", "attempt", "m", "result", "status", "took_ms", "waited_ms"];
    assert_eq!(Vec::from_iter(after.keys()), fields);
    assert_eq!((after["status"].as_str(), after["attempt"].as_str()), ("completed", "1"));
    let result: Value = serde_json::from_str(&after["result"]).unwrap();
    assert_eq!((&result["prediction"], &result["class_name"]), (&json!(0), &json!("setosa")));
    let span = |field: &str| after[field].parse::<u64>().unwrap();
    assert_eq!(job.created_at_ms + span("waited_ms"), job.started_at_ms.unwrap());
    assert_eq!(job.created_at_ms + span("took_ms"), job.finished_at_ms.unwrap());
    assert!(job.created_at_ms <= job.started_at_ms.unwrap() && job.started_at_ms <= job.finished_at_ms);
    assert!((86_300..=86_400).contains(&queue.ttl(id)), "{}", queue.ttl(id));
}

#[tokio::test]
async fn a_model_of_another_shape_needs_only_its_description() {
    let queue = Queue::start().await.of("toy");
    let _worker = queue.worker(Settings::onnx().with_model(Path::new(TOY_MODELS), "toy")).await;

    let one = queue.submit("[[[1,2,3],[4,5,6]]]").await;
    let two = queue.submit("[[[1,2,3],[4,5,6]],[[0,0,0],[0,0,1]]]").await;

    assert_eq!(result_of(&queue.completed(one).await), json!({"prediction": [11.5]}));
    let expected =
        json!({"prediction": [11.5], "predictions": [{"prediction": [11.5]}, {"prediction": [1.5]}]});
    assert_eq!(result_of(&queue.completed(two).await), expected);
}

#[tokio::test]
async fn a_completed_prediction_is_logged_with_the_specified_fields_and_its_attempt() {
    let queue = Queue::start().await;
    let worker = queue.worker(Settings::onnx()).await;

    let id = queue.submit(input(5.123)).await;
    let line = worker.wait_for_log("prediction_completed", SOON).await;

    let line: Map<String, Value> = serde_json::from_str(&line).unwrap();
    let mut fields: Vec<_> = line.keys().map(String::as_str).collect();
    fields.sort_unstable();
    let expected =
        ["action", "attempt", "component", "duration_ms", "job_id", "level", "model", "result", "timestamp"];
    assert_eq!(fields, expected);
    assert_eq!(line["attempt"], 1);
    assert_eq!((&line["level"], &line["component"]), (&json!("INFO"), &json!("worker")));
    assert_eq!((&line["job_id"], &line["result"]), (&json!(id.to_string()), &json!("setosa")));
    assert!(line["duration_ms"].as_f64().unwrap() > 0.0);
    assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
    assert_eq!(worker.logs().find("5.123"), None, "an input is in the log");
}

#[tokio::test]
async fn what_a_request_brought_along_is_in_the_log_of_its_job() {
    let queue = Queue::start().await;
    let worker = queue.worker(Settings::onnx()).await;

    let origin = (Some("request-1".to_owned()), Some("00-abc-def-01".to_owned()));
    let job = NewJob { request_id: origin.0, traceparent: origin.1, ..new_job(input(5.1)) };
    queue.submit_job(0, job).await;

    let line = worker.wait_for_log("prediction_completed", SOON).await;
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&line["request_id"], &line["traceparent"]), (&json!("request-1"), &json!("00-abc-def-01")));
}

#[tokio::test]
async fn input_that_does_not_fit_the_model_fails_alone() {
    let queue = Queue::start().await;
    let inputs = [input(5.1), "[[1,2,3]]".to_owned(), "no JSON".to_owned(), input_of_rows(3)];
    let ids = queue.submit_all(inputs).await;

    let _worker = queue.worker(Settings::onnx().one_at_a_time()).await;

    queue.completed(ids[0]).await;
    let short = "The input does not fit the description of the model, which differs from the one at submission: \
        `input` has the shape [1, 3], but the model takes [-1, 4]";
    assert_eq!(queue.failed(ids[1]).await, (short.to_owned(), "invalid_input".to_owned(), 1));
    let (error, code, attempts) = queue.failed(ids[2]).await;
    assert!(
        error.contains("differs from the one at submission: its stored form cannot be read: "),
        "{error}"
    );
    assert_eq!((code.as_str(), attempts), ("invalid_input", 1));
    queue.completed(ids[3]).await;
    queue.assert_drained().await;
}

#[tokio::test]
async fn a_heartbeat_describes_backend_and_model_and_ends_with_the_worker() {
    let queue = Queue::start().await;
    let worker = queue.worker(Settings::onnx()).await;

    let state = queue.backend_is(BackendState::Ok).await;

    assert_eq!((state.backend.as_str(), state.pid, state.consumers), ("onnx", worker.pid(), 1));
    let metadata = state.metadata.unwrap();
    assert_eq!(metadata["model_spec"], json!({"name": "iris", "version": "1"}));
    let input = &metadata["metadata"]["signature_def"]["serving_default"]["inputs"]["input"];
    assert_eq!(input["tensor_shape"]["dim"], json!([{"size": "-1"}, {"size": "4"}]));
    worker.sigterm();
    assert!(worker.wait_exit(SOON).await.success());
    assert_eq!(queue.store.views.workers().await.unwrap(), []);
}
