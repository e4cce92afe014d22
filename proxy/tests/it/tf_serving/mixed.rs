use serde_json::{Value, json};
use tempfile::TempDir;
use tepal_shared::{
    job::input::ResultForm,
    tensor::{DataType, Tensor, bytes, stored},
};
use tepal_tests::http::Answer;

use crate::{
    gateway::Gateway,
    v2::{PROBABILITIES, assert_error, complete, floats, next_job, output, send},
};

const MODELS: [(&str, &str); 3] = [
    (
        "mixed",
        r#"
        name = "mixed"
        version = "1"
        max_batch = 4
        [[inputs]]
        name = "pixel"
        datatype = "UINT8"
        shape = [2]
        [[inputs]]
        name = "flag"
        datatype = "BOOL"
        shape = []
        [[inputs]]
        name = "text"
        datatype = "BYTES"
        shape = [-1]
        [[outputs]]
        name = "score"
        datatype = "FP32"
        shape = []
        [[outputs]]
        name = "word"
        datatype = "BYTES"
        shape = [1]
        [[outputs]]
        name = "key_bytes"
        datatype = "BYTES"
        shape = []
        "#,
    ),
    (
        "whole",
        r#"
        name = "whole"
        version = "1"
        max_batch = 0
        [[inputs]]
        name = "x"
        datatype = "INT64"
        shape = [-1]
        [[outputs]]
        name = "sum"
        datatype = "INT64"
        shape = []
        "#,
    ),
    (
        "parts",
        r#"
        name = "parts"
        version = "1"
        max_batch = 0
        [[inputs]]
        name = "x"
        datatype = "INT64"
        shape = [-1]
        [[outputs]]
        name = "sums"
        datatype = "INT64"
        shape = [-1]
        [[outputs]]
        name = "pairs"
        datatype = "INT8"
        shape = [-1, 2]
        "#,
    ),
];

struct Site {
    gateway: Gateway,
    _models: TempDir,
}

impl Site {
    async fn start() -> Self {
        let models = TempDir::new().unwrap();
        for (name, text) in MODELS {
            let folder = models.path().join(name);
            std::fs::create_dir(&folder).unwrap();
            std::fs::write(folder.join("model.toml"), text).unwrap();
        }
        let gateway = Gateway::with(&[("MODELS_DIR", models.path().to_str().unwrap())]).await;
        Self { gateway, _models: models }
    }

    /// Sends a prediction of this model while the test plays the worker.
    async fn predict(&self, model: &str, body: Value, outputs: &[Tensor]) -> (Answer, Vec<u8>) {
        let path = format!("/v1/models/{model}:predict");
        let worker = async {
            let name = model.parse().unwrap();
            let mut taken = Vec::new();
            tepal_tests::wait::eventually(crate::gateway::SOON, "a job", async || {
                taken.extend(self.gateway.deliveries_of(name, 0).await);
                !taken.is_empty()
            })
            .await;
            complete(&self.gateway, &taken[0].attempt.claim, outputs).await;
            taken.remove(0).input
        };
        tokio::join!(send(&self.gateway, &path, &[], body.to_string()), worker)
    }

    async fn refuse(&self, model: &str, body: Value, error: &str) {
        let path = format!("/v1/models/{model}:predict");
        let answer = send(&self.gateway, &path, &[], body.to_string()).await;
        assert_error(&answer, 400, "invalid_input", error);
    }
}

fn texts(elements: &[&[u8]]) -> Vec<u8> {
    let mut data = Vec::new();
    elements.iter().for_each(|element| bytes::append(&mut data, element).unwrap());
    data
}

/// The outputs of `mixed` for two rows.
fn outputs() -> [Tensor; 3] {
    let tensor = |name: &str, datatype, shape: &[usize], data| Tensor {
        name: name.to_owned(),
        datatype,
        shape: shape.to_vec(),
        data,
    };
    [
        tensor("score", DataType::Fp32, &[2], floats(&[0.5, 1.5])),
        tensor("word", DataType::Bytes, &[2, 1], texts(&[b"rose", b"\xff"])),
        tensor("key_bytes", DataType::Bytes, &[2], texts(&[b"k", b""])),
    ]
}

#[tokio::test]
async fn several_inputs_and_outputs_have_names_in_both_forms() {
    let site = Site::start().await;
    let mut expected = Vec::new();
    stored::append(&mut expected, DataType::Uint8, &[2, 2], &[1, 2, 3, 255]);
    stored::append(&mut expected, DataType::Bool, &[2], &[1, 0]);
    stored::append(&mut expected, DataType::Bytes, &[2, 1], &texts(&[b"a", b"\xff\xfe"]));
    let expected = ResultForm::Outputs(vec![]).with(expected);
    let rows = json!([
        {"pixel": [1, 2], "flag": true, "text": ["a"]},
        {"text": [{"b64": "//4="}], "flag": false, "pixel": [3, 255]},
    ]);
    let (answer, input) = site.predict("mixed", json!({"instances": rows}), &outputs()).await;
    assert_eq!(input, expected);
    let predictions = json!([
        {"score": 0.5, "word": ["rose"], "key_bytes": {"b64": "aw=="}},
        {"score": 1.5, "word": [{"b64": "/w=="}], "key_bytes": {"b64": ""}},
    ]);
    assert_eq!(answer.json(), json!({"predictions": predictions}));
    let columns =
        json!({"pixel": [[1, 2], [3, 255]], "flag": [true, false], "text": [["a"], [{"b64": "//4="}]]});
    let (answer, input) = site.predict("mixed", json!({"inputs": columns}), &outputs()).await;
    assert_eq!(input, expected);
    let columns = json!({
        "score": [0.5, 1.5],
        "word": [["rose"], [{"b64": "/w=="}]],
        "key_bytes": [{"b64": "aw=="}, {"b64": ""}],
    });
    assert_eq!(answer.json(), json!({"outputs": columns}));
}

#[tokio::test]
async fn a_wrong_type_is_reported_at_its_place() {
    let site = Site::start().await;
    let row = |name: &str, value: Value| {
        let mut row = json!({"pixel": [1, 2], "flag": true, "text": ["a"]});
        row[name] = value;
        json!({"instances": [row]})
    };
    let text = r#"/instances/0/text/0 must be a string or {"b64": "..."}, not a number"#;
    for (body, error) in [
        (row("flag", json!(1)), "/instances/0/flag must be true or false, not a number"),
        (
            row("pixel", json!([1, 2.0])),
            "/instances/0/pixel/1 must be an integer from 0 to 255, and 2.0 is none",
        ),
        (
            row("pixel", json!([1, 256])),
            "/instances/0/pixel/1 must be an integer from 0 to 255, and 256 is none",
        ),
        (row("pixel", json!([1, false])), "/instances/0/pixel/1 must be a number, not a boolean"),
        (row("text", json!([5])), text),
        (row("text", json!("a")), "/instances/0/text must be a list of values, not a string"),
        (row("text", json!([])), "/instances/0/text must hold at least 1 value, but is empty"),
        (
            json!({"instances": [[1, 2]]}),
            r#"/instances/0 must be an object {"pixel": ..., "flag": ..., "text": ...}, not a list"#,
        ),
        (
            json!({"inputs": [[1, 2]]}),
            r#"/inputs must be an object {"pixel": ..., "flag": ..., "text": ...}, not a list"#,
        ),
        (
            json!({"inputs": {"pixel": [[1, 2]], "flag": [true, false], "text": [["a"]]}}),
            "/inputs/flag must hold as many rows as the first input, 1, not 2",
        ),
    ] {
        site.refuse("mixed", body, error).await;
    }
}

#[tokio::test]
async fn a_model_without_a_batch_axis_has_whole_tensors() {
    let site = Site::start().await;
    let sum = Tensor {
        name: "sum".to_owned(),
        datatype: DataType::Int64,
        shape: vec![],
        data: 6_i64.to_le_bytes().to_vec(),
    };
    let (answer, input) = site.predict("whole", json!({"inputs": [1, 2, 3]}), &[sum]).await;
    assert_eq!((answer.status, answer.json()), (200, json!({"outputs": 6})));
    let mut expected = Vec::new();
    let data: Vec<u8> = [1_i64, 2, 3].iter().flat_map(|value| value.to_le_bytes()).collect();
    stored::append(&mut expected, DataType::Int64, &[3], &data);
    assert_eq!(input, ResultForm::Outputs(vec![]).with(expected));
    let error = "/instances must be inputs, since the outputs of the model have no rows";
    site.refuse("whole", json!({"instances": [1, 2, 3]}), error).await;
}

#[tokio::test]
async fn rows_are_the_first_axis_of_outputs_without_a_batch_axis() {
    let site = Site::start().await;
    let outputs = |pairs: &[u8]| {
        let sums: Vec<u8> = [6_i64, 7].iter().flat_map(|value| value.to_le_bytes()).collect();
        let sums = Tensor { name: "sums".to_owned(), datatype: DataType::Int64, shape: vec![2], data: sums };
        let shape = vec![pairs.len() / 2, 2];
        [sums, Tensor { name: "pairs".to_owned(), datatype: DataType::Int8, shape, data: pairs.to_vec() }]
    };
    let body = json!({"instances": [{"x": 1}, {"x": 2}, {"x": 3}]});
    let (answer, _) = site.predict("parts", body.clone(), &outputs(&[1, 2, 3, 255])).await;
    let predictions = json!([{"sums": 6, "pairs": [1, 2]}, {"sums": 7, "pairs": [3, -1]}]);
    assert_eq!((answer.status, answer.json()), (200, json!({"predictions": predictions})));
    let (answer, _) = site.predict("parts", body, &outputs(&[1, 2])).await;
    let error =
        "/instances must be inputs: the outputs of this job have no rows, since their first axes differ";
    assert_error(&answer, 400, "invalid_input", error);
    // The result can be read nevertheless.
    let job = site.gateway.get(answer.header("location").unwrap()).await.json();
    assert_eq!(job["result"]["outputs"][1]["data"], json!([1, 2]));
}

#[tokio::test]
async fn a_model_with_labels_classifies_examples() {
    let gateway = Gateway::start().await;
    let path = "/v1/models/iris:classify";
    let [setosa, versicolor, virginica] = PROBABILITIES;
    let classes = json!([["setosa", setosa], ["versicolor", versicolor], ["virginica", virginica]]);
    for body in [
        json!({"examples": [{"input": [5.1, 3.5, 1.4, 0.2]}]}),
        json!({
            "signature_name": "serving_default",
            "context": {"sepal_length": [5.1], "sepal_width": 3.5},
            "examples": [{"petal_length": 1.4, "petal_width": [0.2], "surplus": "x"}],
        }),
    ] {
        let worker = async {
            let job = next_job(&gateway).await;
            let form = ResultForm::Outputs(vec!["output".to_owned()]);
            assert_eq!(job.input, form.with(crate::gateway::FLOWER_INPUT.to_vec()));
            complete(&gateway, &job.attempt.claim, &[output()]).await;
        };
        let (answer, ()) = tokio::join!(send(&gateway, path, &[], body.to_string()), worker);
        assert_eq!((answer.status, answer.json()), (200, json!({"results": [classes]})), "{body}");
    }
    for (body, error) in [
        (json!({}), "/examples is missing"),
        (json!({"examples": [], "context": 5}), "/context must be an object, not a number"),
        (json!({"examples": []}), "/examples must hold 1 to 1024 rows, but is empty"),
        (json!({"examples": [5]}), r#"/examples/0 must be an object {"input": ...}, not a number"#),
        (
            json!({"examples": [{"sepal_length": 5.1, "sepal_width": 1, "petal_length": 1}]}),
            "/examples/0/petal_width is missing",
        ),
        (
            json!({"examples": [{"sepal_length": 99, "sepal_width": 1, "petal_length": 1, "petal_width": 1}]}),
            "/examples/0/sepal_length must be greater than 0 and less than 10, but is 99",
        ),
    ] {
        assert_error(&send(&gateway, path, &[], body.to_string()).await, 400, "invalid_input", error);
    }
    let site = Site::start().await;
    let answer = send(&site.gateway, "/v1/models/mixed:classify", &[], r#"{"examples": [{}]}"#).await;
    let error =
        "/examples cannot be classified, since the description of the model has no labels; use :predict";
    assert_error(&answer, 400, "invalid_input", error);
}
