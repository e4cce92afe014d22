//! Scripted behaviours, limits, clients that go away, and the server's own end.

use std::error::Error;

use tonic::{Code, Request};

use super::*;
use crate::model_server::{AnswerStyle, Behaviour, CallOutcome};
use crate::ports::free_port;
use crate::wait::eventually;

#[tokio::test]
async fn scripted_behaviours_come_first_and_in_order() {
    let (server, mut client) = start(ServerSpec::iris()).await;
    let failure = |code| Behaviour::Status(code, "scripted".to_owned());
    server.set_behaviour(failure(Code::Internal));
    server.script_next(2, failure(Code::Unavailable));
    server.script_next(1, Behaviour::Normal);

    let mut codes = Vec::new();
    for _ in 0..5 {
        let result = predict(&mut client, iris_request(&[SETOSA])).await;
        codes.push(result.map_or_else(|status| status.code(), |_| Code::Ok));
    }

    assert_eq!(codes, [Code::Unavailable, Code::Unavailable, Code::Ok, Code::Internal, Code::Internal]);
}

#[tokio::test]
async fn a_wrong_answer_is_wrong_in_the_way_that_was_asked_for() {
    for answer_style in [AnswerStyle::FloatVal, AnswerStyle::TensorContent] {
        let (server, mut client) = start(ServerSpec { answer_style, ..ServerSpec::iris() }).await;
        // Behaviour; then of the answer: sizes, number of values, element type, NaN or not.
        let cases: [(Behaviour, &[i64], usize, i32, bool); 6] = [
            (Behaviour::Normal, &[2, 3], 6, 1, false),
            (Behaviour::WrongShape, &[2, 4], 8, 1, false),
            (Behaviour::MissingRow, &[1, 3], 3, 1, false),
            (Behaviour::Nan, &[2, 3], 6, 1, true),
            (Behaviour::UnknownDtype, &[2, 3], 6, 9_999, false),
            (Behaviour::ShortValues, &[2, 3], 5, 1, false),
        ];
        for (behaviour, expected_sizes, len, dtype, nan) in cases {
            server.script_next(1, behaviour.clone());
            let response = predict(&mut client, iris_request(&[SETOSA, VIRGINICA])).await.unwrap();

            let output = &response.outputs["output"];
            let values = values(output);
            assert_eq!((sizes(output).as_slice(), values.len()), (expected_sizes, len), "{behaviour:?}");
            assert_eq!(
                (output.dtype, values.iter().any(|value| value.is_nan())),
                (dtype, nan),
                "{behaviour:?}"
            );
        }
        server.script_next(1, Behaviour::MissingOutput);
        let response = predict(&mut client, iris_request(&[SETOSA])).await.unwrap();
        assert!(!response.outputs.contains_key("output"));
    }
}

#[tokio::test]
async fn a_huge_reply_needs_a_client_with_a_higher_limit() {
    let (server, mut client) = start(ServerSpec::iris()).await;
    server.set_behaviour(Behaviour::HugeReply);

    let refused = predict(&mut client, iris_request(&[SETOSA])).await.unwrap_err();
    let mut client = client.max_decoding_message_size(8 << 20);
    let response = predict(&mut client, iris_request(&[SETOSA])).await.unwrap();

    assert_eq!(refused.code(), Code::OutOfRange);
    assert_eq!(response.outputs["output"].float_val.len(), 3);
}

#[tokio::test]
async fn a_request_over_4_mib_is_answered() {
    let (_server, client) = start(ServerSpec::iris()).await;
    let mut client = client.max_decoding_message_size(8 << 20);
    let rows = vec![SETOSA; 300_000];

    let response = predict(&mut client, iris_request(&rows)).await.unwrap();

    assert_eq!(sizes(&response.outputs["output"]), [300_000, 3]);
}

#[tokio::test]
async fn one_poison_row_fails_the_whole_batch() {
    let (server, mut client) = start(ServerSpec::iris()).await;
    server.set_behaviour(Behaviour::FailRowsOver(6.0, Code::InvalidArgument));

    let poisoned = predict(&mut client, iris_request(&[SETOSA, VIRGINICA, SETOSA])).await.unwrap_err();
    let clean = predict(&mut client, iris_request(&[SETOSA, SETOSA])).await.unwrap();

    assert_eq!(poisoned.code(), Code::InvalidArgument);
    assert_eq!(sizes(&clean.outputs["output"]), [2, 3]);
}

#[tokio::test]
async fn a_long_error_text_is_cut() {
    let (server, mut client) = start(ServerSpec::iris()).await;
    server.script_next(1, Behaviour::Status(Code::Internal, "é".repeat(1_025)));
    server.script_next(1, Behaviour::Status(Code::Internal, "e".repeat(1_024)));

    let long = predict(&mut client, iris_request(&[SETOSA])).await.unwrap_err();
    let short = predict(&mut client, iris_request(&[SETOSA])).await.unwrap_err();

    assert_eq!(long.message(), format!("{}...TRUNCATED", "é".repeat(1_024)));
    assert_eq!(short.message(), "e".repeat(1_024));
}

#[tokio::test]
async fn a_call_takes_its_own_time_and_that_of_its_rows() {
    let cost = Duration::from_millis(20);
    let spec = ServerSpec { call_cost: cost, row_cost: cost, ..ServerSpec::iris() };
    let (server, mut client) = start(spec).await;
    server.script_next(1, Behaviour::Delay(cost));

    predict(&mut client, iris_request(&[SETOSA; 3])).await.unwrap();

    let call = server.calls().pop().unwrap();
    assert!(call.ended.unwrap() - call.started >= 5 * cost);
}

#[tokio::test]
async fn a_call_over_the_limit_is_refused() {
    let (server, mut client) = start(ServerSpec { max_concurrent_calls: 1, ..ServerSpec::iris() }).await;
    server.script_next(1, Behaviour::Hang);
    let hanging = spawn_predict(&client);
    eventually(SOON, "the first call", async || server.calls().len() == 1).await;

    let refused = predict(&mut client, iris_request(&[SETOSA])).await.unwrap_err();
    hanging.abort();
    eventually(SOON, "its end", async || server.calls()[0].outcome == CallOutcome::Cancelled).await;
    let accepted = predict(&mut client, iris_request(&[SETOSA])).await;

    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(accepted.is_ok());
}

#[tokio::test]
async fn a_client_that_gives_up_is_seen() {
    let (server, mut client) = start(ServerSpec::iris()).await;
    server.set_behaviour(Behaviour::Hang);
    let mut limited = Request::new(iris_request(&[SETOSA]));
    limited.set_timeout(Duration::from_millis(200));

    let timed_out = client.predict(limited).await.unwrap_err();
    let hanging = spawn_predict(&client);
    eventually(SOON, "the second call", async || server.calls().len() == 2).await;
    hanging.abort();

    eventually(SOON, "both cancelled", async || {
        server.calls().iter().all(|call| call.outcome == CallOutcome::Cancelled && call.ended.is_some())
    })
    .await;
    // tonic's word for a deadline that has passed; TensorFlow Serving would say DEADLINE_EXCEEDED.
    assert_eq!(timed_out.code(), Code::Cancelled);
}

#[tokio::test]
async fn a_stopped_server_drops_its_calls_and_can_come_back_on_its_port() {
    let addr = ([127, 0, 0, 1], free_port()).into();
    let server = ModelServer::start_on(addr, ServerSpec::iris()).await;
    let mut client = PredictionServiceClient::connect(url(&server)).await.unwrap();
    server.set_behaviour(Behaviour::Hang);
    let hanging = spawn_predict(&client);
    eventually(SOON, "the call", async || server.calls().len() == 1).await;

    let calls = server.stop().await;
    let dropped = hanging.await.unwrap().unwrap_err();
    let refused = predict(&mut client, iris_request(&[SETOSA])).await.unwrap_err();
    let server = ModelServer::start_on(addr, ServerSpec::iris()).await;
    let answered = predict(&mut client, iris_request(&[SETOSA])).await;

    assert_eq!(calls[0].outcome, CallOutcome::ServerStopped);
    // tonic calls a connection that broke during a call UNKNOWN; only the source distinguishes it from the server's
    // own word.
    assert!(dropped.source().is_some_and(|source| source.is::<tonic::transport::Error>()), "{dropped:?}");
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    assert!(answered.is_ok());
    assert_eq!(server.calls().len(), 1);
}
