use std::time::Duration;

use tepal_proto::open_inference::infer_parameter::ParameterChoice::{Int64Param, StringParam};
use tepal_tests::{process::Signal, wait::eventually};
use tonic::Code;

use super::{Site, asked, asked_with, assert_status, flower, line, raw_output, wire::Wire, with_parameters};
use crate::{
    gateway::SOON,
    v2::{becomes, complete, count, next_job, output},
};

#[tokio::test]
async fn a_client_whose_deadline_passes_cancels_its_job() {
    let site = Site::start().await;
    let mut request = asked(flower());
    request.set_timeout(Duration::from_millis(500));
    let status = site.infer(request).await.unwrap_err();
    assert!([Code::DeadlineExceeded, Code::Cancelled].contains(&status.code()), "{status:?}");
    becomes(&site.gateway, "cancelled").await;
    let log = site.logged("job_cancelled").await;
    assert!(["deadline", "client_gone"].contains(&log["reason"].as_str().unwrap()), "{log}");
}

#[tokio::test]
async fn the_proxy_itself_ends_a_call_at_its_deadline() {
    let site = Site::start().await;
    let mut wire = Wire::open(&site).await;
    let status = wire.infer(&flower(), &[("grpc-timeout", "300m")]).await;
    let message = "The job did not end within the time that the request allows; it was cancelled unless the request has an \
                   Idempotency-Key";
    assert_status(&status, Code::DeadlineExceeded, "deadline_exceeded", message);
    let id = line(status.metadata(), "tepal-job-id").unwrap();
    assert_eq!(site.job(id).await["status"], "cancelled");
    let status = wire.infer(&flower(), &[("grpc-timeout", "1 s")]).await;
    let message = "grpc-timeout must be 1 to 8 digits and one of H, M, S, m, u, n";
    assert_status(&status, Code::InvalidArgument, "invalid_input", message);
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_its_job() {
    let site = Site::start().await;
    let mut client = site.client().await;
    let call = tokio::spawn(async move { client.model_infer(asked(flower())).await });
    becomes(&site.gateway, "pending").await;
    // The stream is reset; the connection ends with the client.
    call.abort();
    becomes(&site.gateway, "cancelled").await;
    let log = site.logged("job_cancelled").await;
    assert_eq!(log["reason"], "client_gone");
}

#[tokio::test]
async fn a_job_with_an_idempotency_key_goes_on_and_a_repeated_call_gets_its_result() {
    let site = Site::start().await;
    let key = [("idempotency-key", "order-1")];
    let mut wire = Wire::open(&site).await;
    for deadline in ["100m", "200m"] {
        let status = wire.infer(&flower(), &[key[0], ("grpc-timeout", deadline)]).await;
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    }
    assert_eq!(count(&site.gateway, "pending").await, 1);
    let (tensor, _, first) = raw_output(site.exchange(asked_with(flower(), &key)).await);
    assert_eq!(tensor, output());
    let (_, _, again) = raw_output(site.infer(asked_with(flower(), &key)).await);
    assert_eq!(line(&first, "tepal-job-id"), line(&again, "tepal-job-id"));
    assert_eq!(site.gateway.log_length(), 1);
    let other = with_parameters(&[("priority", Int64Param(1))]);
    let status = site.infer(asked_with(other, &key)).await.unwrap_err();
    let message = "The Idempotency-Key was used before with another request";
    assert_status(&status, Code::FailedPrecondition, "idempotency_conflict", message);
}

#[tokio::test]
async fn a_job_that_takes_longer_than_the_wait_goes_on() {
    let site = Site::with(&[("V2_WAIT_SECONDS", "1")]).await;
    let status = site.infer(asked(flower())).await.unwrap_err();
    assert_status(&status, Code::DeadlineExceeded, "still_running", status.message());
    let id = line(status.metadata(), "tepal-job-id").unwrap();
    complete(&site.gateway, &next_job(&site.gateway).await.attempt.claim, &[output()]).await;
    assert_eq!(site.job(id).await["status"], "completed");
}

#[tokio::test]
async fn a_job_has_the_timeout_of_its_request() {
    let site = Site::start().await;
    let request = with_parameters(&[("timeout", Int64Param(100_000))]);
    let status = site.infer(asked(request)).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    let job = site.job(line(status.metadata(), "tepal-job-id").unwrap()).await;
    // Either the call or the job's own limit comes first.
    assert!(job["status"] == "cancelled" || job["error_code"] == "queue_timeout", "{job}");
}

#[tokio::test]
async fn a_client_that_prefers_not_to_wait_gets_the_job() {
    let site = Site::start().await;
    let outcome = site.infer(asked_with(flower(), &[("prefer", "respond-async")])).await;
    let (metadata, message, _) = outcome.unwrap().into_parts();
    let id = line(&metadata, "tepal-job-id").unwrap();
    let text = |name: &str| message.parameters[name].parameter_choice.clone();
    assert_eq!(text("job_id"), Some(StringParam(id.to_owned())));
    assert_eq!(text("status"), Some(StringParam("pending".to_owned())));
    assert!(message.outputs.is_empty() && message.raw_output_contents.is_empty());
    assert_eq!(
        (message.model_name.as_str(), line(&metadata, "preference-applied")),
        ("iris", Some("respond-async"))
    );
    complete(&site.gateway, &next_job(&site.gateway).await.attempt.claim, &[output()]).await;
    assert_eq!(site.job(id).await["status"], "completed");
}

#[tokio::test]
async fn a_proxy_that_stops_answers_its_calls_and_cancels_their_jobs() {
    let site = Site::with(&[("HEADER_TIMEOUT_MS", "3600000")]).await;
    let mut client = site.client().await;
    let call = tokio::spawn(async move { client.model_infer(asked(flower())).await });
    // An idle connection does not keep the proxy from stopping.
    let idle = site.channel().await;
    becomes(&site.gateway, "pending").await;
    site.gateway.proxy.process().signal(Signal::Term);
    let status = call.await.unwrap().unwrap_err();
    assert_status(&status, Code::Unavailable, "service_unavailable", "Service temporarily unavailable");
    assert!(site.gateway.proxy.wait_exit(SOON).await.success());
    drop(idle);
    let id = line(status.metadata(), "tepal-job-id").unwrap().parse().unwrap();
    assert_eq!(site.gateway.hash(id)["status"], "cancelled");
    assert_eq!(site.gateway.proxy.logs().find("drain_timed_out"), None);
}

#[tokio::test]
async fn a_job_whose_store_fails_is_not_to_be_repeated_blindly() {
    let site = Site::start().await;
    let mut wire = Wire::open(&site).await;
    let call = tokio::spawn(async move { wire.infer(&flower(), &[("grpc-timeout", "5S")]).await });
    becomes(&site.gateway, "pending").await;
    site.gateway.redis.kill9();
    let status = call.await.unwrap();
    assert_status(&status, Code::Unknown, "outcome_unknown", "Service temporarily unavailable");
    // A call that nothing was stored for can be repeated.
    let mut client = site.client().await;
    eventually(SOON, "calls to be refused", async || {
        client.model_infer(asked(flower())).await.unwrap_err().code() == Code::Unavailable
    })
    .await;
}
