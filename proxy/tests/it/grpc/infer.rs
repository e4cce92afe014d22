use tepal_proto::open_inference::{
    InferTensorContents, ModelInferRequest,
    infer_parameter::ParameterChoice::{self, BoolParam, DoubleParam, Int64Param, StringParam, Uint64Param},
    model_infer_request::{InferInputTensor, InferRequestedOutputTensor},
};
use tepal_shared::{
    job::{Priority, input::ResultForm},
    tensor::{DataType, Tensor},
};
use tonic::Code;

use super::{Site, asked, assert_status, flower, input, line, parameter, raw_output, with_parameters};
use crate::{
    gateway::FLOWER_INPUT,
    v2::{complete, floats, next_job, output},
};

fn fp32(elements: &[f32]) -> InferTensorContents {
    InferTensorContents { fp32_contents: elements.to_vec(), ..InferTensorContents::default() }
}

/// A request whose input has these elements in lists.
fn listed(contents: InferTensorContents) -> ModelInferRequest {
    let inputs = vec![InferInputTensor { contents: Some(contents), ..input() }];
    ModelInferRequest { inputs, raw_input_contents: vec![], ..flower() }
}

#[tokio::test]
async fn the_answer_has_the_outputs_as_raw_bytes_and_names_the_job() {
    let site = Site::start().await;
    let version = "1".to_owned();
    let raw = ModelInferRequest { id: "7".to_owned(), model_version: version, ..flower() };
    for request in [raw, ModelInferRequest { id: "7".to_owned(), ..listed(fp32(&[5.1, 3.5, 1.4, 0.2])) }] {
        let (tensor, message, metadata) = raw_output(site.exchange(asked(request)).await);
        assert_eq!(tensor, output());
        let named = (message.model_name.as_str(), message.model_version.as_str(), message.id.as_str());
        assert_eq!(named, ("iris", "1", "7"));
        let job = site.job(line(&metadata, "tepal-job-id").unwrap()).await;
        assert_eq!(job["status"], "completed");
        assert!(line(&metadata, "x-request-id").is_some());
    }
}

#[tokio::test]
async fn the_job_has_the_tensors_the_outputs_and_the_limits_of_the_request() {
    let site = Site::start().await;
    let cases: [(&[(&str, ParameterChoice)], Priority); 6] = [
        (&[], Priority::Normal),
        (&[("priority", Uint64Param(1))], Priority::High),
        (&[("priority", Int64Param(1))], Priority::High),
        (&[("priority", Uint64Param(2)), ("timeout", Int64Param(0))], Priority::Normal),
        (&[("priority", Uint64Param(3)), ("timeout", Int64Param(60_000_000))], Priority::Low),
        (&[("sequence_id", Uint64Param(0)), ("unknown", StringParam("x".to_owned()))], Priority::Normal),
    ];
    for (parameters, priority) in cases {
        let outputs = vec![InferRequestedOutputTensor { name: "output".to_owned(), ..Default::default() }];
        let request = ModelInferRequest { outputs, ..with_parameters(parameters) };
        let worker = async {
            let job = next_job(&site.gateway).await;
            let (form, tensors) = ResultForm::of(&job.input).unwrap();
            assert_eq!(form, ResultForm::Outputs(vec!["output".to_owned()]));
            assert_eq!(tensors, FLOWER_INPUT);
            complete(&site.gateway, &job.attempt.claim, &[output()]).await;
        };
        let (outcome, ()) = tokio::join!(site.infer(asked(request)), worker);
        let (_, _, metadata) = raw_output(outcome);
        let job = site.job(line(&metadata, "tepal-job-id").unwrap()).await;
        assert_eq!(job["priority"], priority.as_str(), "{parameters:?}");
    }
}

#[tokio::test]
async fn a_large_request_and_a_large_result_are_as_good() {
    let site = Site::start().await;
    let rows: Vec<f32> = [5.1, 3.5, 1.4, 0.2].repeat(1024);
    let inputs = vec![InferInputTensor { shape: vec![1024, 4], ..input() }];
    let raw = ModelInferRequest { inputs, raw_input_contents: vec![floats(&rows).into()], ..flower() };
    // More than what is converted beside other requests.
    let ids = (0..40_000).map(|number: u32| (number.to_string(), parameter(Int64Param(1))));
    let padded = ModelInferRequest { parameters: ids.collect(), ..raw.clone() };
    let elements: Vec<f32> = (0..1_000_000).map(|number| number as f32 / 8.0).collect();
    let large = Tensor {
        name: "output".to_owned(),
        datatype: DataType::Fp32,
        shape: vec![1, 1_000_000],
        data: floats(&elements),
    };
    for request in [raw, padded] {
        let worker = async {
            let job = next_job(&site.gateway).await;
            complete(&site.gateway, &job.attempt.claim, std::slice::from_ref(&large)).await;
        };
        let (outcome, ()) = tokio::join!(site.infer(asked(request)), worker);
        assert!(raw_output(outcome).0 == large);
    }
}

#[tokio::test]
async fn a_failed_job_is_an_error_with_its_reason() {
    let site = Site::start().await;
    for (code, expected) in [
        ("model_rejected", Code::InvalidArgument),
        ("model_error", Code::Internal),
        ("queue_timeout", Code::DeadlineExceeded),
        ("model_overloaded", Code::ResourceExhausted),
        ("model_not_found", Code::NotFound),
    ] {
        let status = site.fails(code).await;
        assert_status(&status, expected, code, "It did not work");
        assert!(line(status.metadata(), "tepal-job-id").is_some());
    }
}

#[tokio::test]
async fn an_unknown_model_or_version_is_not_found() {
    let site = Site::start().await;
    let request = ModelInferRequest { model_name: "rose".to_owned(), ..flower() };
    let status = site.infer(asked(request)).await.unwrap_err();
    let message = "There is no such model; known are iris and language";
    assert_status(&status, Code::NotFound, "model_not_found", message);
    let request = ModelInferRequest { model_version: "2".to_owned(), ..flower() };
    let status = site.infer(asked(request)).await.unwrap_err();
    let message = "The model has no such version; those that can be pinned are 1";
    assert_status(&status, Code::NotFound, "model_version_not_found", message);
}

/// The mistakes of parameters and outputs.
fn wrong_facts() -> Vec<(ModelInferRequest, &'static str)> {
    let of = |name: &str, choice| with_parameters(&[(name, choice)]);
    let output = |name: &str, parameters: &[(&str, ParameterChoice)]| {
        let parameters =
            parameters.iter().map(|(name, choice)| ((*name).to_owned(), parameter(choice.clone())));
        let output = InferRequestedOutputTensor { name: name.to_owned(), parameters: parameters.collect() };
        ModelInferRequest { outputs: vec![output], ..flower() }
    };
    vec![
        (
            of("priority", StringParam("1".to_owned())),
            "/parameters/priority must be a whole number, not a string",
        ),
        (of("priority", DoubleParam(0.5)), "/parameters/priority must be a whole number, not 0.5"),
        (of("timeout", Int64Param(-1)), "/parameters/timeout must be a whole number, not -1"),
        (of("timeout", BoolParam(true)), "/parameters/timeout must be a whole number, not a boolean"),
        (
            of("sequence_id", StringParam("a".to_owned())),
            "/parameters/sequence_id is not supported: each request is a job of its own, and any worker may run it",
        ),
        (output("x", &[]), "/outputs/0 is not an output of the model; its outputs are `output`"),
        (
            output("output", &[("classification", Int64Param(2))]),
            "/outputs/0/parameters/classification is not supported; the answer contains the output itself",
        ),
        (ModelInferRequest { id: "x".repeat(1025), ..flower() }, "/id must have at most 1024 characters"),
    ]
}

/// The mistakes of tensors.
fn wrong_tensors() -> Vec<(ModelInferRequest, &'static str)> {
    let typed = |input: InferInputTensor| ModelInferRequest { inputs: vec![input], ..flower() };
    let both = ModelInferRequest { raw_input_contents: flower().raw_input_contents, ..listed(fp32(&[1.0])) };
    let half = InferInputTensor { datatype: "FP16".to_owned(), contents: Some(fp32(&[1.0; 4])), ..input() };
    let ints = InferTensorContents { int_contents: vec![1; 4], ..InferTensorContents::default() };
    vec![
        (
            ModelInferRequest { inputs: vec![], raw_input_contents: vec![], ..flower() },
            "/inputs lacks the input `input`",
        ),
        (
            ModelInferRequest { raw_input_contents: vec![], ..flower() },
            "/inputs/0/contents/fp32_contents must have 4 elements, as the shape [1, 4] says, not 0",
        ),
        (both, "/inputs/0/contents/fp32_contents must be empty, since the request has raw_input_contents"),
        (
            ModelInferRequest { raw_input_contents: vec![floats(&[1.0; 4]).into(); 2], ..flower() },
            "/raw_input_contents must have one element for each of the 1 inputs, not 2",
        ),
        (
            ModelInferRequest { raw_input_contents: vec![floats(&[1.0; 3]).into()], ..flower() },
            "/raw_input_contents/0 must be 16, since FP32 of the shape [1, 4] has so many bytes, not 12",
        ),
        (
            ModelInferRequest { inputs: vec![half], raw_input_contents: vec![], ..flower() },
            "/inputs/0/contents must be empty: FP16 has no list, its elements are sent in raw_input_contents",
        ),
        (
            listed(ints),
            "/inputs/0/contents/int_contents must be empty: the elements of FP32 are in fp32_contents (and 1 more)",
        ),
        (
            listed(fp32(&[5.1, 3.5, 99.0, 0.2])),
            "/inputs/0/contents/fp32_contents/2 petal_length must be greater than 0",
        ),
        (
            typed(InferInputTensor { datatype: "FP64".to_owned(), ..input() }),
            "/raw_input_contents/0 must be 32",
        ),
        (
            typed(InferInputTensor { datatype: "fp32".to_owned(), ..input() }),
            "/inputs/0/datatype must be one of BOOL",
        ),
        (typed(InferInputTensor { shape: vec![2, 2], ..input() }), "/inputs/0/shape/1 must be 4, not 2"),
        (
            typed(InferInputTensor { shape: vec![-1, 4], ..input() }),
            "/inputs/0/shape/0 must be a whole number",
        ),
        (
            typed(InferInputTensor { name: "x".to_owned(), ..input() }),
            "/inputs/0/name is not an input of the model; its inputs are `input`",
        ),
    ]
}

#[tokio::test]
async fn every_mistake_is_an_invalid_argument_with_its_place() {
    let site = Site::start().await;
    for (request, expected) in wrong_facts().into_iter().chain(wrong_tensors()) {
        let status = site.infer(asked(request)).await.unwrap_err();
        assert!(status.message().starts_with(expected), "{expected}: {status:?}");
        assert_status(&status, Code::InvalidArgument, "invalid_input", status.message());
    }
    assert_eq!(site.gateway.log_length(), 0);
}
