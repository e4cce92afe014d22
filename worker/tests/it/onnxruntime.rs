//! The model in the worker's own process, with the ONNX Runtime library.

use std::{path::Path, process::Command};

use serde_json::json;

use crate::{
    config::complaint,
    doctor::{doctor, line, sound},
    flowers::classify_all,
    queue::{Queue, SOON, result_of},
    settings::{Settings, TOY_MODELS},
};

#[tokio::test]
async fn all_flowers_get_their_classes_alone_and_as_one_job() {
    let queue = Queue::start().await;
    let worker = queue.worker(Settings::onnxruntime()).await;

    classify_all(&queue).await;

    queue.assert_drained().await;
    // The library has threads and destructors of its own.
    worker.sigterm();
    assert!(worker.wait_exit(SOON).await.success());
}

#[tokio::test]
async fn an_export_with_maps_of_probabilities_is_served_and_the_built_in_engine_refers_to_onnx_runtime() {
    let zipmap = |settings: Settings| settings.with_model(Path::new(TOY_MODELS), "zipmap");
    let queue = Queue::start().await.of("zipmap");
    let _worker = queue.worker(zipmap(Settings::onnxruntime())).await;

    let id = queue.submit("[[6.3,3.3,6.0,2.5]]").await;

    let result = result_of(&queue.completed(id).await);
    assert_eq!((&result["prediction"], &result["class_name"]), (&json!(2), &json!("virginica")));
    let label = json!({"name": "output_label", "shape": [1], "datatype": "BYTES", "data": ["virginica"]});
    assert_eq!(result["outputs"][1], label);

    let text = complaint(zipmap(Settings::onnx())).await;
    let missing = "the built-in engine does not have ZipMap (node `ZipMap`); set MODEL_BACKEND=onnxruntime";
    assert!(text.ends_with(missing), "{text}");
}

#[tokio::test]
async fn the_doctor_reports_the_library_and_its_version() {
    let redis = sound().await;

    let (is_well, text) = doctor(&redis.url(), Settings::onnxruntime()).await;

    assert!(is_well, "{text}");
    let library = tepal_tests::onnxruntime::library();
    let version = library.to_str().unwrap().rsplit_once(".so.").unwrap().1;
    let expected = format!("ok     library: ONNX Runtime {version} ({})", library.display());
    assert_eq!(line(&text, "library"), expected);
}

#[tokio::test]
async fn a_library_that_cannot_be_used_is_reported_in_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("libonnxruntime.so");
    let with = || Settings::onnxruntime().with("ORT_DYLIB_PATH", file.display());
    let before = format!(
        "tepal-worker: the model cannot be used: the ONNX Runtime library {} cannot be used (",
        file.display()
    );
    let after = "); run `pip install --upgrade onnxruntime`, or set ORT_DYLIB_PATH";

    std::fs::write(&file, "no library").unwrap();
    let text = complaint(with()).await;
    assert!(text.starts_with(&before) && text.ends_with(after) && text.lines().count() == 1, "{text}");

    compile(OLD, &file);
    let text = complaint(with()).await;
    assert_eq!(text, format!("{before}it has version 1.16.3, and 1.17 is the oldest that works{after}"));

    let redis = sound().await;
    let (is_well, text) = doctor(&redis.url(), with()).await;
    assert!(
        !is_well && line(&text, "model").ends_with("or set ORT_DYLIB_PATH to a libonnxruntime.so"),
        "{text}"
    );
}

/// A library that says that it is older than any that Tepal can use.
const OLD: &str = r#"
    static const void *api(unsigned version) { return 0; }
    static const char *version(void) { return "1.16.3"; }
    static const struct { const void *(*api)(unsigned); const char *(*version)(void); } base = { api, version };
    const void *OrtGetApiBase(void) { return &base; }
"#;

fn compile(source: &str, library: &Path) {
    let file = library.with_extension("c");
    std::fs::write(&file, source).unwrap();
    let compiler =
        Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(library).arg(&file).output().unwrap();
    assert!(compiler.status.success(), "{}", String::from_utf8_lossy(&compiler.stderr));
}
