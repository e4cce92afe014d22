use tepal_proto::open_inference::{ModelInferRequest, ServerLiveRequest, ServerMetadataRequest};
use tonic::Code;

use super::{Site, asked, asked_with, assert_status, flower, line};
use crate::{expect::REQUEST_ID, gateway::SOON, keys::Keys};

const NOT_LET_IN: &str = "The request needs a valid API key, in the header X-API-Key or as a bearer token";

async fn with_keys(keys: &Keys) -> Site {
    let path = keys.path();
    Site::with(&[("API_KEYS_FILE", path.to_str().unwrap())]).await
}

#[tokio::test]
async fn a_call_needs_the_scopes_of_its_key() {
    let keys = Keys::with("");
    let [read, submit] = ["read", "submit"].map(|scope| keys.add(&format!("--scope {scope}")));
    let both = keys.add("--scope read --scope submit");
    let site = with_keys(&keys).await;
    let status = site.infer(asked(flower())).await.unwrap_err();
    assert_status(&status, Code::Unauthenticated, "unauthorized", NOT_LET_IN);
    for (key, lacks) in [(&read, "submit"), (&submit, "read")] {
        let status = site.infer(asked_with(flower(), &[("x-api-key", key)])).await.unwrap_err();
        let message = format!("This needs a key with the scope {lacks}");
        assert_status(&status, Code::PermissionDenied, "insufficient_scope", &message);
    }
    let bearer = format!("Bearer {both}");
    for key in [("x-api-key", both.as_str()), ("authorization", bearer.as_str())] {
        assert!(site.exchange(asked_with(flower(), &[key])).await.is_ok());
    }
    let mut client = site.client().await;
    let status = client.server_metadata(ServerMetadataRequest {}).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(client.server_live(ServerLiveRequest {}).await.is_ok(), "health needs no key");
}

#[tokio::test]
async fn a_key_may_be_limited_to_models() {
    let keys = Keys::with("");
    let key = keys.add("--scope read --scope submit --model other");
    let site = with_keys(&keys).await;
    let status = site.infer(asked_with(flower(), &[("x-api-key", &key)])).await.unwrap_err();
    assert_status(&status, Code::PermissionDenied, "model_forbidden", "The key is limited to other models");
}

#[tokio::test]
async fn calls_count_against_the_rate_limit_and_health_does_not() {
    let site = Site::with(&[("RATE_LIMIT_PER_MINUTE", "3")]).await;
    let mut client = site.client().await;
    for _ in 0..5 {
        client.server_live(ServerLiveRequest {}).await.unwrap();
    }
    for left in [2, 1, 0] {
        let answer = client.server_metadata(ServerMetadataRequest {}).await.unwrap();
        let state = line(answer.metadata(), "ratelimit").unwrap().to_owned();
        assert!(state.starts_with(&format!(r#""client";r={left};"#)), "{state}");
    }
    let status = client.server_metadata(asked_with(ServerMetadataRequest {}, &[])).await.unwrap_err();
    let seconds: u64 = line(status.metadata(), "retry-after").unwrap().parse().unwrap();
    let message = format!("Too many requests from this address; the next is accepted after {seconds} s");
    assert_status(&status, Code::ResourceExhausted, "rate_limited", &message);
    let delay = tonic_types::StatusExt::get_details_retry_info(&status).unwrap().retry_delay.unwrap();
    assert_eq!(delay.as_secs(), seconds);
}

#[tokio::test]
async fn a_large_answer_counts_as_more_than_one_request() {
    let site = Site::with(&[("RATE_LIMIT_PER_MINUTE", "100")]).await;
    let worker = async {
        let job = crate::v2::next_job(&site.gateway).await;
        let large = tepal_shared::tensor::Tensor {
            shape: vec![1, 1 << 18],
            data: vec![0; 1 << 20],
            ..crate::v2::output()
        };
        crate::v2::complete(&site.gateway, &job.attempt.claim, &[large]).await;
    };
    let (outcome, ()) = tokio::join!(site.infer(asked(flower())), worker);
    let state = line(outcome.unwrap().metadata(), "ratelimit").unwrap().to_owned();
    // The request, and four times 256 KiB.
    assert!(state.starts_with(r#""client";r=95;"#), "{state}");
}

#[tokio::test]
async fn a_full_queue_is_exhausted_and_not_unavailable() {
    let site = Site::with(&[("MAX_QUEUE_DEPTH", "1")]).await;
    site.gateway.submit().await;
    let status = site.infer(asked(flower())).await.unwrap_err();
    assert_status(&status, Code::ResourceExhausted, "queue_full", "The queue is full; try again later");
    assert!(line(status.metadata(), "retry-after").is_some());
}

#[tokio::test]
async fn a_message_has_the_size_of_a_body() {
    let site = Site::with(&[("MAX_BODY_BYTES", "262144")]).await;
    let sent = |bytes: usize| ModelInferRequest { id: "x".repeat(bytes), ..flower() };
    let status = site.infer(asked(sent(262_144))).await.unwrap_err();
    let message = "The body must hold at most 262144 bytes";
    assert_status(&status, Code::ResourceExhausted, "payload_too_large", message);
    let status = site.infer(asked(sent(262_000))).await.unwrap_err();
    assert_status(&status, Code::InvalidArgument, "invalid_input", "/id must have at most 1024 characters");
}

#[tokio::test]
async fn a_message_that_takes_too_much_memory_is_refused_before_it_is_decoded() {
    let site = Site::with(&[("MAX_BODY_BYTES", "1048576"), ("BODY_MEMORY_BYTES", "8388608")]).await;
    let inputs = vec![Default::default(); 500_000];
    let status = site.infer(asked(ModelInferRequest { inputs, ..flower() })).await.unwrap_err();
    let message = "Reading this body takes more than the 8388608 bytes of memory for all bodies; send fewer values, or tensors in \
                   binary form";
    assert_status(&status, Code::ResourceExhausted, "overloaded", message);
}

#[tokio::test]
async fn a_compressed_message_is_not_implemented() {
    let site = Site::start().await;
    let status = site.infer(asked_with(flower(), &[("grpc-encoding", "gzip")])).await.unwrap_err();
    assert_status(&status, Code::Unimplemented, "unsupported_media_type", "The body must not be compressed");
}

#[tokio::test]
async fn calls_are_counted_by_their_paths_and_failures_are_logged() {
    let site = Site::with(&[("MAX_QUEUE_DEPTH", "1")]).await;
    site.exchange(asked(flower())).await.unwrap();
    site.gateway.submit().await;
    site.infer(asked(flower())).await.unwrap_err();
    let path = "/inference.GRPCInferenceService/ModelInfer";
    let metrics = site.gateway.get("/metrics").await;
    for status in ["200", "503"] {
        let series =
            format!(r#"tepal_http_requests_total{{method="POST",route="{path}",status="{status}"}}"#);
        assert_eq!(metrics.metric(&series), 1.0, "{}", metrics.text());
    }
    let failed = site.logged("request_failed").await;
    assert_eq!(failed["path"], path);
    assert_eq!((&failed["code"], &failed["request_id"]), (&"queue_full".into(), &REQUEST_ID.into()));
    let listening = site.gateway.proxy.wait_for_log(r#""scheme":"grpc""#, SOON).await;
    assert!(listening.contains(&site.addr), "{listening}");
}
