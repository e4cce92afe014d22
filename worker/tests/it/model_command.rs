//! `tepal-worker model inspect`.

use std::path::Path;

use tepal_shared::model::Model;
use tepal_tests::{
    model_server::{ModelServer, ServerSpec},
    process::Service,
};

use crate::{queue::SOON, settings::Settings};

const MODELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../compose/models");

/// Whether it succeeded, and what it printed.
async fn inspect(path: &Path) -> (bool, String) {
    run(&[&path.display().to_string()], &Settings::default()).await
}

async fn run(words: &[&str], settings: &Settings) -> (bool, String) {
    let command = ["model", "inspect"].iter().chain(words);
    let service = command.fold(Service::binary("tepal-worker"), |service, word| service.arg(word));
    let service = service.envs(&settings.pairs()).start();
    let status = service.wait_exit(SOON).await;
    (status.success(), service.logs().lines().join("\n"))
}

#[tokio::test]
async fn what_a_file_says_is_printed_as_a_description() {
    for path in ["language", "language/model.onnx"] {
        let (is_well, text) = inspect(&Path::new(MODELS).join(path)).await;

        assert!(is_well, "{text}");
        for expected in [
            "language/model.onnx says.\n",
            "\n# Operator sets: ai.onnx 13\n# Operators: Cast, Conv, Div, Gather, ",
            "\nmax_batch = 1024    # ",
            "\n[[inputs]]\nname = \"text\"\ndatatype = \"INT64\"\nshape = [-1]    # the model says [N, length]\n",
            "\n[[outputs]]\nname = \"evidence\"\ndatatype = \"FP32\"\nshape = [-1, 5]    # the model says [N, length, 5]",
        ] {
            assert!(text.contains(expected), "no {expected:?} in {text}");
        }
    }
}

#[tokio::test]
async fn a_file_that_is_no_model_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    std::fs::write(&path, "").unwrap();

    let (is_well, text) = inspect(&path).await;

    assert!(!is_well);
    let expected = format!("tepal-worker: the ONNX file {} is empty: copy it again", path.display());
    assert_eq!(text, expected);
}

#[tokio::test]
async fn what_a_server_says_is_printed_as_a_description() {
    let spec = ServerSpec { with_row_sums: true, ..ServerSpec::toy() };
    let server = ModelServer::start(spec).await;

    let (is_well, text) = run(&["--served", "toy"], &Settings::serving(&server)).await;

    assert!(is_well, "{text}");
    let models = tempfile::tempdir().unwrap();
    std::fs::create_dir(models.path().join("toy")).unwrap();
    std::fs::write(models.path().join("toy/model.toml"), &text).unwrap();
    let model = Model::load(models.path(), "toy").unwrap();
    assert_eq!(model.inputs[0].shape.to_string(), "[2, 3]");
    let outputs: Vec<_> =
        model.outputs().map(|output| (output.name.as_str(), output.shape.to_string())).collect();
    assert_eq!(outputs, [("row_sum", "[]".to_owned()), ("score", "[1]".to_owned())]);
}

#[tokio::test]
async fn a_server_that_cannot_describe_a_model_is_reported() {
    let server = ModelServer::start(ServerSpec::toy()).await;
    let settings = Settings::serving(&server);
    for (words, expected) in [
        (
            &["--served", "roses"][..],
            "`roses`: The model server accepts no calls for the model: Could not find any versions of model roses",
        ),
        (
            &["--served", "toy", "--signature", "train"],
            "`toy`: The model has no signature `train`, but `serving_default`",
        ),
    ] {
        let (is_well, text) = run(words, &settings).await;

        assert!(
            !is_well && text.contains("tepal-worker: the model server does not describe the model "),
            "{text}"
        );
        assert!(text.contains(expected), "{text}");
    }
}
