//! What the server answers, reports and refuses when nothing was scripted.

use tepal_proto::tensorflow::serving::model_service_client::ModelServiceClient;
use tepal_proto::tensorflow::serving::model_spec::VersionChoice;
use tepal_proto::tensorflow::serving::model_version_status::State;
use tepal_proto::tensorflow::serving::{GetModelMetadataRequest, GetModelStatusRequest, SignatureDefMap};
use tonic::Code;

use super::*;
use crate::model_server::{AnswerStyle, CallOutcome, TensorSpec};

#[tokio::test]
async fn more_than_95_percent_of_the_iris_rows_get_the_right_class() {
    let (rows, classes): (Vec<[f32; 4]>, Vec<usize>) =
        include_str!("../../../../compose/models/iris/iris.csv").lines().skip(1).map(flower).unzip();
    let (_server, mut client) = start(ServerSpec::iris()).await;

    let response = predict(&mut client, iris_request(&rows)).await.unwrap();

    let output = &response.outputs["output"];
    assert_eq!(sizes(output), [150, 3]);
    assert!(output.float_val.chunks(3).all(|row| (row.iter().sum::<f32>() - 1.0).abs() < 1e-6));
    let right = output.float_val.chunks(3).zip(classes).filter(|(row, class)| argmax(row) == *class).count();
    assert_eq!(right, 147);
}

#[tokio::test]
async fn both_answer_styles_and_both_input_layouts_give_the_same_values() {
    let by_content = ServerSpec { answer_style: AnswerStyle::TensorContent, ..ServerSpec::iris() };
    let (_one, mut floats) = start(ServerSpec::iris()).await;
    let (_two, mut content) = start(by_content).await;
    let (_three, mut by_feature) = start(ServerSpec::iris_by_feature()).await;
    let columns = ["sepal_length", "sepal_width", "petal_length", "petal_width"].into_iter().enumerate();
    let columns = columns.map(|(i, name)| (name, content_tensor(&[2, 1], &[SETOSA[i], VIRGINICA[i]])));

    let floats = predict(&mut floats, iris_request(&[SETOSA, VIRGINICA])).await.unwrap();
    let content = predict(&mut content, iris_request(&[SETOSA, VIRGINICA])).await.unwrap();
    let by_feature = predict(&mut by_feature, request("iris", columns)).await.unwrap();

    let expected = &floats.outputs["output"];
    let bytes: Vec<u8> = expected.float_val.iter().flat_map(|value| value.to_le_bytes()).collect();
    assert_eq!(expected.float_val.len(), 6);
    for response in [content, by_feature] {
        let output = &response.outputs["output"];
        assert_eq!((sizes(output), &output.tensor_content), (vec![2, 3], &bytes));
        assert!(output.float_val.is_empty());
    }
}

#[tokio::test]
async fn a_model_may_take_its_numbers_as_text() {
    let (_server, mut client) = start(ServerSpec::iris()).await;
    let expected = predict(&mut client, iris_request(&[SETOSA])).await.unwrap();
    let spec = ServerSpec { inputs: vec![TensorSpec::text("input", &[4])], ..ServerSpec::iris() };
    let (_other, mut client) = start(spec).await;
    let texts = |values: &[&str]| TensorProto {
        dtype: DataType::DtString.into(),
        string_val: values.iter().map(|value| value.as_bytes().to_vec()).collect(),
        ..float_tensor(&[1, 4], &[])
    };

    let given =
        predict(&mut client, request("iris", [("input", texts(&["5.1", "3.5", "1.4", "0.2"]))])).await;

    assert_eq!(given.unwrap().outputs, expected.outputs);
    for wrong in [texts(&["5.1", "3.5", "1.4", "small"]), texts(&["5.1"]), float_tensor(&[1, 4], &SETOSA)] {
        let refused = predict(&mut client, request("iris", [("input", wrong)])).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn an_answer_names_the_version_and_signature_that_ran() {
    let (_server, mut client) = start(ServerSpec::toy()).await;
    let values = content_tensor(&[2, 2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);

    let response = predict(&mut client, request("toy", [("x", values)])).await.unwrap();

    assert_eq!(response.outputs["score"].float_val, [11.5, 1.0]);
    let model_spec = response.model_spec.unwrap();
    assert_eq!((model_spec.name.as_str(), model_spec.signature_name.as_str()), ("toy", "serving_default"));
    assert_eq!(model_spec.version_choice, Some(VersionChoice::Version(7)));
}

#[tokio::test]
async fn values_are_filled_up_as_tensorflow_does() {
    let rows: [(TensorProto, &[f32]); 5] = [
        (content_tensor(&[1, 4], &SETOSA), &SETOSA),
        (float_tensor(&[1, 4], &SETOSA), &SETOSA),
        (float_tensor(&[1, 4], &[2.0, 3.0]), &[2.0, 3.0, 3.0, 3.0]),
        (float_tensor(&[2, 4], &[]), &[0.0; 8]),
        (float_tensor(&[0, 4], &[]), &[]),
    ];
    let (server, mut client) = start(ServerSpec::iris()).await;

    for (tensor, read) in rows {
        let response = predict(&mut client, request("iris", [("input", tensor)])).await.unwrap();

        let call = server.calls().pop().unwrap();
        assert_eq!((call.rows, call.values.as_slice()), (read.len() / 4, read));
        assert_eq!(sizes(&response.outputs["output"]), [i64::try_from(call.rows).unwrap(), 3]);
    }
}

#[tokio::test]
async fn a_request_that_does_not_fit_the_model_is_refused_as_tensorflow_serving_does() {
    let good = || content_tensor(&[1, 4], &SETOSA);
    let double = TensorProto { dtype: DataType::DtDouble.into(), ..float_tensor(&[1, 4], &[]) };
    let no_dtype = TensorProto { dtype: 0, ..good() };
    let filtered = PredictRequest { output_filter: vec!["y".to_owned()], ..iris_request(&[SETOSA]) };
    let inputs = |tensor| request("iris", [("input", tensor)]);
    #[rustfmt::skip]
    let cases = [
        (request("iris", [("x", good())]), "input tensor alias not found in signature: x. Inputs expected to be in the set {input}."),
        (request("iris", [("input", good()), ("x", good())]), "input size does not match signature: 2!=1 len({input,x}) != len({input}). Sent extra: {x}. Missing but required: {}."),
        (request("iris", []), "input size does not match signature: 0!=1 len({}) != len({input}). Sent extra: {}. Missing but required: {input}."),
        (filtered, "output tensor alias not found in signature: y Outputs expected to be in the set {output}."),
        (inputs(content_tensor(&[1, 3], &SETOSA[..3])), "Incompatible shapes: [1,3] vs. [4]"),
        (inputs(content_tensor(&[4], &SETOSA)), "In[0] is not a matrix. Instead it has shape [4]"),
        (inputs(double), "Expects arg[0] to be float but double is provided"),
        (inputs(no_dtype), "tensor parsing error: input"),
        (inputs(content_tensor(&[2, 4], &SETOSA)), "tensor parsing error: input"),
        (inputs(float_tensor(&[-1, 4], &SETOSA)), "tensor parsing error: input"),
        (inputs(float_tensor(&[i64::MAX, 4], &[])), "tensor parsing error: input"),
        (PredictRequest { model_spec: None, ..iris_request(&[SETOSA]) }, "Missing ModelSpec"),
    ];
    let (server, mut client) = start(ServerSpec::iris()).await;

    for (request, text) in cases {
        let status = predict(&mut client, request).await.unwrap_err();

        assert_eq!((status.code(), status.message()), (Code::InvalidArgument, text));
    }
    assert!(server.calls().iter().all(|call| call.outcome == CallOutcome::Failed(Code::InvalidArgument)));
}

#[tokio::test]
async fn a_request_for_another_model_version_or_signature_is_refused() {
    let version = |version| Some(VersionChoice::Version(version));
    let label = Some(VersionChoice::VersionLabel("canary".to_owned()));
    let cases = [
        ("rose", None, "", Code::NotFound, "Servable not found for request: Latest(rose)"),
        ("iris", version(99), "", Code::NotFound, "Servable not found for request: Specific(iris, 99)"),
        ("iris", version(0), "", Code::NotFound, "Servable not found for request: Specific(iris, 0)"),
        ("iris", label, "", Code::InvalidArgument, "Unrecognized servable version label: canary"),
        ("iris", version(1), "x", Code::FailedPrecondition, "Serving signature key \"x\" not found."),
    ];
    let (_server, mut client) = start(ServerSpec::iris()).await;

    for (name, version_choice, signature, code, text) in cases {
        let model_spec = ModelSpec { version_choice, signature_name: signature.to_owned(), ..model(name) };
        let request = PredictRequest { model_spec: Some(model_spec), ..iris_request(&[SETOSA]) };
        let status = predict(&mut client, request).await.unwrap_err();

        assert_eq!((status.code(), status.message()), (code, text));
    }
}

#[tokio::test]
async fn metadata_has_the_shapes_of_the_signature() {
    let (_server, mut client) = start(ServerSpec::toy()).await;
    let fields = vec!["signature_def".to_owned()];
    let request = GetModelMetadataRequest { model_spec: Some(model("toy")), metadata_field: fields };

    let response = client.get_model_metadata(request).await.unwrap().into_inner();

    let map: SignatureDefMap = response.metadata["signature_def"].to_msg().unwrap();
    assert_eq!(map.signature_def.keys().collect::<Vec<_>>(), ["__saved_model_init_op", "serving_default"]);
    let signature = &map.signature_def["serving_default"];
    assert_eq!(signature.inputs["x"].tensor_shape, Some(shape([-1, 2, 3])));
    assert_eq!(signature.outputs["score"].tensor_shape, Some(shape([-1, 1])));
    assert_eq!(signature.outputs["score"].dtype(), DataType::DtFloat);
}

#[tokio::test]
async fn a_model_that_is_loading_says_so_and_is_not_found() {
    let (server, mut client) = start(ServerSpec::iris()).await;
    let mut status_client = ModelServiceClient::connect(url(&server)).await.unwrap();
    let request = || GetModelStatusRequest { model_spec: Some(model("iris")) };

    let before = status_client.get_model_status(request()).await.unwrap().into_inner();
    server.set_available(false);
    let after = status_client.get_model_status(request()).await.unwrap().into_inner();
    let refused = predict(&mut client, iris_request(&[SETOSA])).await.unwrap_err();

    let states = [before, after].map(|response| response.model_version_status[0].state());
    assert_eq!(states, [State::Available, State::Loading]);
    assert_eq!(refused.code(), Code::NotFound);
}

#[tokio::test]
async fn a_server_can_lack_the_metadata_and_status_calls() {
    let (server, mut client) =
        start(ServerSpec { with_status: false, ..ServerSpec::iris_by_feature() }).await;
    let mut status_client = ModelServiceClient::connect(url(&server)).await.unwrap();

    let metadata = client.get_model_metadata(GetModelMetadataRequest::default()).await.unwrap_err();
    let status = status_client.get_model_status(GetModelStatusRequest::default()).await.unwrap_err();

    assert_eq!([metadata.code(), status.code()], [Code::Unimplemented; 2]);
}

fn argmax(row: &[f32]) -> usize {
    (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap()
}

/// A line of iris.csv: four lengths and the class.
fn flower(line: &str) -> ([f32; 4], usize) {
    let numbers: Vec<f32> = line.split(',').map(|number| number.parse().unwrap()).collect();
    (numbers[..4].try_into().unwrap(), numbers[4] as usize)
}
