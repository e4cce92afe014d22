//! Another model with other names, shapes and bounds: nothing in the proxy knows the reference model.

use serde_json::json;
use tepal_shared::{
    queue::work::Settlement,
    tensor::{DataType, stored},
};

use crate::{
    expect::invalid,
    gateway::{Gateway, accepted},
};

const TOY: [(&str, &str); 2] =
    [("MODELS_DIR", concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/models")), ("MODEL_NAME", "toy")];

/// Floats as the proxy stores them.
fn stored(shape: &[usize], values: &[f32]) -> Vec<u8> {
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let mut bytes = Vec::new();
    stored::append(&mut bytes, DataType::Fp32, shape, &data);
    bytes
}

#[tokio::test]
async fn rows_follow_the_models_shape_and_have_no_bounds() {
    let gateway = Gateway::with(&TOY).await;
    let id = accepted(
        &gateway.predict(r#"{"data": [[[1, -2, 1e30], [0, 50, 6.5]], [[1, 2, 3], [4, 5, 6]]]}"#).await,
    );
    let delivery = gateway.take_delivery_of("toy").await;
    assert_eq!(
        delivery.input,
        stored(&[2, 2, 3], &[1.0, -2.0, 1e30, 0.0, 50.0, 6.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    );

    gateway.settle(&delivery.attempt.claim, Settlement::Complete(r#"{"output":[11.5]}"#.to_owned())).await;
    assert_eq!(gateway.get(&format!("/job/{id}")).await.json()["result"], json!({"output": [11.5]}));
}

#[tokio::test]
async fn the_sample_is_the_models_own() {
    let gateway = Gateway::with(&TOY).await;
    accepted(&gateway.post("/predict/test").await);
    let delivery = gateway.take_delivery_of("toy").await;
    assert_eq!(delivery.input, stored(&[1, 2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
}

#[tokio::test]
async fn what_does_not_fit_the_model_is_refused() {
    let gateway = Gateway::with(&TOY).await;
    let many = json!({"data": vec![json!([[1, 2, 3], [4, 5, 6]]); 17]}).to_string();
    for (body, place, code, detail) in [
        (r#"{"data": [[5.1, 3.5, 1.4, 0.2]]}"#, "/data/0", "length", "must hold exactly 2 values, not 4"),
        (r#"{"data": [[[1, 2, 3], [4, 5]]]}"#, "/data/0/1", "length", "must hold exactly 3 values, not 2"),
        (r#"{"data": [[[1, 2, 3], [4, 5, "6"]]]}"#, "/data/0/1/2", "type", "must be a number, not a string"),
        (
            r#"{"data": [[[1, 2, 3], [4, 5, 1e39]]]}"#,
            "/data/0/1/2",
            "not_representable",
            "must be a finite 32-bit float, and 1e+39 is none",
        ),
        (&many, "/data", "too_many_rows", "must hold 1 to 16 rows, not 17"),
    ] {
        let answer = gateway.predict(body).await;
        invalid(&[(place, code, detail)]).assert(&answer, "/predict", &format!("{place} {detail}"));
    }
}
