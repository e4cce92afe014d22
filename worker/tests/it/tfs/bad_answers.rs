//! Unusable answers, and requests that the server rejects: the job fails at once, with a clear reason.

use tepal_shared::job::JobStatus;
use tepal_tests::model_server::{AnswerStyle, Behaviour, ModelServer, ServerSpec};
use tonic::Code;

use crate::{
    flowers::input,
    queue::{Queue, model, outcomes, rows},
    settings::Settings,
};

/// Checks the error that a client gets when the only call of its job ends like this. Each case takes `calls` calls, including
/// calls that are not the job's.
async fn assert_reported(style: AnswerStyle, code: &str, cases: &[(Behaviour, &str)], calls: usize) {
    let spec = ServerSpec { answer_style: style, ..ServerSpec::iris() };
    let (queue, server) = (Queue::start().await, ModelServer::start(spec).await);
    let _worker = queue.worker(Settings::serving(&server)).await;
    for (behaviour, error) in cases {
        server.script_next(1, behaviour.clone());
        let id = queue.submit(input(5.1)).await;
        assert_eq!(queue.failed(id).await, ((*error).to_owned(), code.to_owned(), 1), "{behaviour:?}");
    }
    assert_eq!(server.calls().len(), cases.len() * calls, "a useless answer is not requested again");
    let dead = queue.redis.cli(&["XLEN", &queue.store.queue.keys().dead(0, model())]);
    assert_eq!(dead, cases.len().to_string(), "each leaves a dead letter");
    queue.assert_drained().await;
}

const USELESS: [(Behaviour, &str); 6] = [
    (Behaviour::WrongShape, "The model answered with shape [1, 4] instead of [1, 3] in the output `output`"),
    (Behaviour::MissingRow, "The model answered with shape [0, 3] instead of [1, 3] in the output `output`"),
    (Behaviour::MissingOutput, "The model answered without the output `output`"),
    (Behaviour::Nan, "The model answered with a value that is not a finite number in the output `output`"),
    (Behaviour::UnknownDtype, "The model answered with the unknown type 9999"),
    (Behaviour::ShortValues, "The model answered with 2 values instead of 3 in the output `output`"),
];

#[tokio::test]
async fn a_useless_answer_in_float_val_fails_the_job_with_a_plain_reason() {
    assert_reported(AnswerStyle::FloatVal, "bad_model_answer", &USELESS, 1).await;
}

#[tokio::test]
async fn a_useless_answer_in_tensor_content_fails_the_job_with_a_plain_reason() {
    assert_reported(AnswerStyle::TensorContent, "bad_model_answer", &USELESS, 1).await;
}

#[tokio::test]
async fn a_rejected_request_fails_the_job_with_the_servers_reason() {
    let status = |code, text: &str| Behaviour::Status(code, text.to_owned());
    let long = "x".repeat(2_000);
    let cut = format!("The model server rejected the request: {}", "x".repeat(200));
    let rejected = [
        (status(Code::InvalidArgument, "bad width"), "The model server rejected the request: bad width"),
        (status(Code::InvalidArgument, ""), "The model server rejected the request"),
        (status(Code::InvalidArgument, &long), cut.as_str()),
    ];
    // The second call of each is the model's sample, which the server does not reject.
    assert_reported(AnswerStyle::FloatVal, "model_rejected", &rejected, 2).await;
}

#[tokio::test]
async fn nan_fails_only_the_job_that_it_belongs_to() {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    server.set_behaviour(Behaviour::Nan);
    let ids = queue.submit_all((0..5).map(|_| input(5.1))).await;

    let _worker = queue.worker(Settings::serving(&server).one_at_a_time()).await;

    // The server breaks the last row.
    queue.all_completed(&ids[..4]).await;
    let error = "The model answered with a value that is not a finite number in the output `output`";
    assert_eq!(queue.failed(ids[4]).await, (error.to_owned(), "bad_model_answer".to_owned(), 1));
    assert_eq!(rows(&server), [5], "one call was enough");
}

#[tokio::test]
async fn one_bad_job_in_a_batch_of_eight_is_found_and_fails_alone() {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    server.set_behaviour(Behaviour::FailRowsOver(9.0, Code::InvalidArgument));
    let first_values = [5.1, 5.2, 5.3, 5.4, 5.5, 9.5, 5.7, 5.8];
    let ids = queue.submit_all(first_values.map(input)).await;

    let _worker = queue.worker(Settings::serving(&server).one_at_a_time()).await;

    for (id, first) in ids.iter().zip(first_values) {
        let job = queue.ended(*id).await;
        let expected = if first > 9.0 { JobStatus::Failed } else { JobStatus::Completed };
        assert_eq!((job.status, job.attempts), (expected, 1), "{job:?}");
    }
    let error = "The model server rejected the request: a row starts with 9.5, which is over 9";
    assert_eq!(queue.failed(ids[5]).await, (error.to_owned(), "model_rejected".to_owned(), 1));
    assert_eq!(rows(&server), [8, 4, 4, 2, 1, 1, 2], "{:?}", outcomes(&server));
    queue.assert_drained().await;
}
