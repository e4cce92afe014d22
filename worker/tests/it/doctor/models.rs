//! What the doctor says of models, their descriptions and their versions.

use std::path::Path;

use tepal_tests::{model_server::ServerSpec, process::Service};

use super::{MODELS, doctor, line, sound, with_server};
use crate::{
    queue::SOON,
    settings::{Settings, TOY_MODELS},
};

/// The doctor's report on the toy's ONNX file with another description.
pub(crate) async fn doctor_of_toy(change: impl Fn(&str) -> String) -> (bool, String) {
    let redis = sound().await;
    let models = tempfile::tempdir().unwrap();
    std::fs::create_dir(models.path().join("toy")).unwrap();
    let toy = Path::new(TOY_MODELS).join("toy");
    let description = std::fs::read_to_string(toy.join("model.toml")).unwrap();
    std::fs::copy(toy.join("model.onnx"), models.path().join("toy/model.onnx")).unwrap();
    std::fs::write(models.path().join("toy/model.toml"), change(&description)).unwrap();
    doctor(&redis.url(), Settings::onnx().with_model(models.path(), "toy")).await
}

#[tokio::test]
async fn nothing_is_wrong_with_a_model_of_variable_axes() {
    let redis = sound().await;

    let (is_well, text) =
        doctor(&redis.url(), Settings::onnx().with("MODEL_NAME", "language").with("MODELS", "language"))
            .await;

    assert!(is_well && text.contains("0 wrong, 0 not possible"), "{text}");
}

#[tokio::test]
async fn a_description_that_does_not_fit_its_onnx_file_is_reported() {
    type Change = fn(&str) -> String;
    let changes: [(Change, &str); 3] = [
        (
            |text| text.replace("\"x\"", "\"y\""),
            "it has the input `y`, but the inputs of the ONNX file are `x`",
        ),
        (
            |text| text.replace("shape = [1]", "shape = [2]"),
            "output `score` has the shape [2] in model.toml, but [1] without the batch axis in the ONNX file",
        ),
        (
            |text| text.replace("\"FP32\"", "\"INT64\""),
            "input `x` is INT64 in model.toml, but FP32 in the ONNX file",
        ),
    ];
    for (change, expected) in changes {
        let (is_well, text) = doctor_of_toy(change).await;

        assert!(!is_well && text.contains("MODEL_NAME, MODELS_DIR: the model description "), "{text}");
        assert!(text.ends_with(expected), "{text}");
    }
}

#[tokio::test]
async fn a_broken_version_is_reported_while_a_good_one_is_served() {
    let redis = sound().await;
    let models = tempfile::tempdir().unwrap();
    let toy = Path::new(TOY_MODELS).join("toy/model.onnx");
    for version in ["1", "2"] {
        std::fs::create_dir_all(models.path().join("toy").join(version)).unwrap();
        std::fs::copy(&toy, models.path().join("toy").join(version).join("model.onnx")).unwrap();
    }
    std::fs::write(models.path().join("toy/2/model.onnx"), "").unwrap();
    let settings = Settings::onnx().with_model(models.path(), "toy");

    let (is_well, text) = doctor(&redis.url(), settings.clone()).await;

    assert!(!is_well);
    assert!(line(&text, "model: ").contains("`toy` is available"), "{text}");
    let broken = line(&text, "model version");
    assert!(
        broken.starts_with("WRONG") && broken.contains("2/model.onnx is empty: copy it again"),
        "{broken}"
    );
    let settings = settings.with("REDIS_URL", redis.url());
    let worker = Service::binary("tepal-worker").envs(&settings.pairs()).env("METRICS_ADDR", "127.0.0.1:0");
    let worker = worker.env("LOG_FORMAT", "json").start();
    worker.wait_for_log("model_version_broken", SOON).await;
}

#[tokio::test]
async fn the_newest_version_of_the_server_is_called_unless_the_description_names_one() {
    let (redis, server) = with_server(ServerSpec { version: 9, ..ServerSpec::iris() }).await;
    let (is_well, text) = doctor(&redis.url(), Settings::serving(&server)).await;
    assert!(is_well, "{text}");
    assert!(line(&text, "description").ends_with("model.toml and the model agree (version 9)"), "{text}");

    let models = tempfile::tempdir().unwrap();
    std::fs::create_dir(models.path().join("iris")).unwrap();
    let description = std::fs::read_to_string(Path::new(MODELS).join("iris/model.toml")).unwrap();
    for (line_of_version, expected) in [
        ("version = \"9\"", "ok     description: model.toml and the model agree (version 9)"),
        ("version = \"8\"", "Could not find version 8 of model iris"),
        ("version_label = \"stable\"", "ok     description: model.toml and the model agree (version 9)"),
        ("version_label = \"canary\"", "Unrecognized servable version label: canary"),
    ] {
        let text = format!("{line_of_version}\n{description}");
        std::fs::write(models.path().join("iris/model.toml"), text).unwrap();
        let settings = Settings::serving(&server).with_model(models.path(), "iris");
        let (_, text) = doctor(&redis.url(), settings).await;
        assert!(text.contains(expected), "{line_of_version}: {text}");
    }
}
