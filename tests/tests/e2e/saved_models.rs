//! SavedModels on TensorFlow Serving: JPEG files, 8-bit images, ids of variable length. The server answers what TensorFlow answered.

use std::path::Path;

use serde_json::{Value, json};
use tepal_tests::http::Method;
use tepal_tests::saved_models::{Port, Product, Recorded, SavedModel, check, table};

use crate::SOON;

#[tokio::test]
async fn saved_models_answer_as_tensorflow_does_however_their_inputs_are_sent() {
    let models = SavedModel::recorded();
    let server = Recorded::start(&models).await;
    let product = Product::start(server.port(), &models, |_| ()).await;

    let all = check(&product.client(), &models).await;

    assert!(all.iter().all(|checked| checked.difference.is_ok()), "{}", table(&all));
    let ways: Vec<_> = all.iter().map(|checked| format!("{} {}", checked.model, checked.way)).collect();
    let expected = [
        "photo `data`",
        "photo `inputs`",
        "photo binary form",
        "photo raw body",
        "tile `data`",
        "tile `inputs`",
        "tile binary form",
        "tokens `data`",
        "tokens `inputs`",
        "tokens binary form",
    ];
    assert_eq!(ways, expected);
    // A worker asks only for outputs that the description has: all of them.
    let photo = ["colour", "mean", "size"].map(str::to_owned).to_vec();
    assert!(server.filters("photo").iter().all(|filter| *filter == photo));
}

#[tokio::test]
async fn a_saved_model_is_described_by_its_signature() {
    let models = SavedModel::recorded();
    let server = Recorded::start(&models).await;
    let product = Product::start(server.port(), &models, |_| ()).await;

    for (name, model) in &models {
        let described = product.client().get(&format!("/models/{name}")).await.json();
        let head = |tensor: &Value| json!([tensor["name"], tensor["datatype"], tensor["shape"]]);
        let heads = |kind: &str| described[kind].as_array().unwrap().iter().map(head).collect::<Vec<_>>();
        let expected =
            |ports: &[Port]| ports.iter().map(|port| json!([port.name, port.datatype, port.shape])).collect();
        let (inputs, outputs): (Vec<_>, Vec<_>) = (expected(&model.inputs), expected(&model.outputs));
        assert_eq!((heads("inputs"), heads("outputs")), (inputs, outputs), "{name}");
        assert_eq!(described["max_batch"], 1024, "{name}");
    }
}

#[tokio::test]
async fn a_saved_model_is_asked_only_for_the_outputs_that_are_described() {
    let models = SavedModel::recorded();
    let server = Recorded::start(&models).await;
    let rows = models["photo"].cases[1].rows();
    // The worker would ask a derived sample, too.
    let description = format!("outputs = [{{ name = \"size\" }}]\nsample = [{{ b64 = {} }}]", rows[0]["b64"]);
    let product = Product::start(server.port(), &models, |folder| describe(folder, &description)).await;

    let body = json!({"model": "photo", "data": rows});
    let id = product.client().post_json("/predict", &body).await.json()["job_id"].clone();

    let result = product.client().finished(id.as_str().unwrap(), SOON).await["result"].clone();
    assert_eq!(result["predictions"], json!([{"prediction": [40, 8]}, {"prediction": [24, 24]}]));
    assert_eq!(result["outputs"], Value::Null);
    assert_eq!(server.filters("photo"), [["size"]]);
}

#[tokio::test]
async fn a_file_that_is_not_an_image_fails_alone() {
    let models = SavedModel::recorded();
    let server = Recorded::start(&models).await;
    let photo = &models["photo"].cases[0].rows()[0];
    // Otherwise the sample is an empty file, which no server can decode.
    let description = format!("sample = [{{ b64 = {} }}]", photo["b64"]);
    let product = Product::start(server.port(), &models, |folder| describe(folder, &description)).await;
    let client = product.client();
    let image = json!({"model": "photo", "data": [photo]});
    let mut ids = Vec::new();
    for body in [image.to_string().into_bytes(), b"not a JPEG".to_vec(), image.to_string().into_bytes()] {
        let content_type = if body.starts_with(b"{") { "application/json" } else { "image/jpeg" };
        let headers = [("content-type", content_type)];
        let answer = client.request(Method::POST, "/predict?model=photo", &headers, body).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        ids.push(answer.json()["job_id"].as_str().unwrap().to_owned());
    }

    let mut ends = Vec::new();
    for id in ids {
        let job = client.finished(&id, SOON).await;
        ends.push((job["status"].clone(), job["error_code"].clone()));
    }
    let completed = (json!("completed"), Value::Null);
    assert_eq!(ends, [completed.clone(), (json!("failed"), json!("model_rejected")), completed]);
}

/// Adds to what the server says of `photo`.
fn describe(folder: &Path, description: &str) {
    std::fs::create_dir(folder.join("photo")).unwrap();
    std::fs::write(folder.join("photo/model.toml"), description).unwrap();
}
