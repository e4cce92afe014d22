//! Who is to blame for a failed call.

use std::time::Duration;

use tepal_shared::job::{JobId, owner::View};
use tepal_tests::{
    model_server::{AnswerStyle, Behaviour, CallOutcome, ModelServer, OpenInferenceSpec, ServerSpec},
    process::Worker,
    wait::eventually,
};
use tonic::Code;

use crate::{
    flowers::{input, input_of_rows},
    queue::{Queue, SOON, calls_end, rows, running},
    settings::Settings,
};

async fn assert_completed_at_first(queue: &Queue, ids: &[JobId]) {
    for job in queue.all_completed(ids).await {
        assert_eq!(job.attempts, 1, "{job:?}");
    }
    queue.assert_drained().await;
}

fn assert_never_down(worker: &Worker) {
    assert_eq!(worker.logs().find("backend_down"), None);
}

#[tokio::test]
async fn one_bad_row_fails_alone_whatever_the_server_calls_it() {
    for (code, expected, attempts) in
        [(Code::Internal, "model_error", 4), (Code::InvalidArgument, "model_rejected", 1)]
    {
        let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
        server.set_behaviour(Behaviour::FailRowsOver(9.0, code));
        let first_values = (0..40).map(|number| if number == 17 { 9.5 } else { 5.1 });
        let mut ids = queue.submit_all(first_values.map(input)).await;
        let settings =
            Settings::open_inference(&server).with("RETRY_BASE_MS", 10).with("RECLAIM_INTERVAL_MS", 20);

        let _worker = queue.worker(settings.one_at_a_time()).await;

        let (_, failed, tries) = queue.failed(ids.remove(17)).await;
        assert_eq!((failed.as_str(), tries), (expected, attempts), "{code:?}");
        assert_completed_at_first(&queue, &ids).await;
        assert_eq!(server.calls()[0].rows, 40, "they shared a call");
    }
}

/// A server whose queue is full for a while: `refusals` calls in a row, and whatever comes beside two others.
async fn full_queue(text: &str) {
    let spec = ServerSpec {
        max_concurrent_calls: 2,
        refusal: Code::Unavailable,
        call_cost: Duration::from_millis(20),
        ..ServerSpec::iris()
    };
    let (queue, server) = (Queue::start().await, ModelServer::start(spec).await);
    // Nothing has succeeded yet, so only the server's answers show that this is no outage.
    server.script_next(6, Behaviour::Status(Code::Unavailable, text.to_owned()));
    let ids = queue.submit_all((0..100).map(|_| input(5.1))).await;

    let worker = queue.worker(Settings::open_inference(&server).with("BATCH_MAX_ROWS", 1)).await;

    assert_completed_at_first(&queue, &ids).await;
    assert_never_down(&worker);
    assert!(worker.logs().find("\"verdict\":\"full\"").is_some(), "{}", worker.logs().tail(20));
}

#[tokio::test]
async fn a_full_queue_is_load_and_no_outage() {
    full_queue("[request id: 7] Exceeds maximum queue size").await;
}

#[tokio::test]
async fn unavailable_from_a_server_whose_model_is_ready_is_load_and_no_outage() {
    full_queue("try again later").await;
}

#[tokio::test]
async fn calls_larger_than_the_servers_messages_may_be_are_made_smaller() {
    for (behaviour, max_request_bytes) in
        [(Behaviour::FailBytesOver(400), usize::MAX), (Behaviour::Normal, 400)]
    {
        let spec = ServerSpec { max_request_bytes, ..ServerSpec::iris() };
        let (queue, server) = (Queue::start().await, ModelServer::start(spec).await);
        server.set_behaviour(behaviour);
        let ids = queue.submit_all((0..64).map(|_| input(5.1))).await;

        let worker = queue.worker(Settings::open_inference(&server)).await;

        assert_completed_at_first(&queue, &ids).await;
        assert_never_down(&worker);
        let large = queue.submit(input_of_rows(40)).await;
        let (error, code, attempts) = queue.failed(large).await;
        assert_eq!((code.as_str(), attempts), ("payload_too_large_for_model", 1), "{error}");
    }
}

#[tokio::test]
async fn calls_have_no_more_rows_than_the_server_takes() {
    let open_inference = OpenInferenceSpec { max_batch_size: Some(16), ..OpenInferenceSpec::default() };
    let spec = ServerSpec { open_inference, ..ServerSpec::iris() };
    let (queue, server) = (Queue::start().await, ModelServer::start(spec).await);
    let ids = queue.submit_all((0..100).map(|_| input(5.1))).await;

    let _worker = queue.worker(Settings::open_inference(&server).one_at_a_time()).await;

    assert_completed_at_first(&queue, &ids).await;
    assert!(rows(&server).iter().all(|rows| *rows <= 16), "{:?}", rows(&server));
    assert_eq!(rows(&server)[0], 16);
    let too_long = queue.submit(input_of_rows(17)).await;
    let (error, code, _) = queue.failed(too_long).await;
    assert!(error.contains("batch-size must be <= 16"), "{error}");
    assert_eq!(code, "model_rejected");
}

#[tokio::test]
async fn a_useless_answer_fails_the_job_with_a_plain_reason() {
    let useless = [
        (Behaviour::WrongShape, "shape [1, 4] instead of [1, 3] in the output `output`"),
        (Behaviour::MissingRow, "shape [0, 3] instead of [1, 3] in the output `output`"),
        (Behaviour::Nan, "a value that is not a finite number in the output `output`"),
        (Behaviour::UnknownDtype, "the unknown type `FP128`"),
        (Behaviour::ShortValues, "2 values instead of 3 in the output `output`"),
    ];
    for answer_style in [AnswerStyle::FloatVal, AnswerStyle::TensorContent] {
        let spec = ServerSpec { answer_style, ..ServerSpec::iris() };
        let (queue, server) = (Queue::start().await, ModelServer::start(spec).await);
        let _worker = queue.worker(Settings::open_inference(&server)).await;
        for (behaviour, error) in useless.clone() {
            server.script_next(1, behaviour);
            let id = queue.submit(input(5.1)).await;
            let expected = (format!("The model answered with {error}"), "bad_model_answer".to_owned(), 1);
            assert_eq!(queue.failed(id).await, expected);
        }
        assert_eq!(server.call_count(), useless.len(), "a useless answer is not requested again");
    }
}

#[tokio::test]
async fn the_call_of_a_cancelled_job_is_cancelled_long_before_its_deadline() {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    server.set_behaviour(Behaviour::Hang);
    let settings = Settings::open_inference(&server).with("INFERENCE_TIMEOUT_MS", 600_000);
    let _worker = queue.worker(settings.with_lease_ms(900)).await;
    let id = queue.submit(input(5.1)).await;
    running(&server, 1).await;

    queue.store.intake.cancel(id, View::All).await.unwrap();

    calls_end(&server, &[CallOutcome::Cancelled]).await;
    assert_eq!(queue.job(id).await.attempts, 1);
}

#[tokio::test]
async fn a_server_that_refuses_everything_is_down_until_it_serves_the_sample() {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    // MLServer answers this while it loads a model.
    server.set_behaviour(Behaviour::Status(Code::InvalidArgument, "Model iris is not ready yet.".to_owned()));
    let worker = queue.worker(Settings::open_inference(&server)).await;
    let ids = queue.submit_all((0..5).map(|_| input(5.1))).await;

    worker.wait_for_log("backend_down", SOON).await;
    let several = async || server.call_count() >= 4;
    eventually(SOON, "several tries", several).await;
    server.set_behaviour(Behaviour::Normal);

    assert_completed_at_first(&queue, &ids).await;
}
