//! When the output accepts no lines, log lines are lost and nothing else.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;
use tepal_tests::http::Client;
use tepal_tests::process::{Proxy, Sink, Worker, binary_path};
use tepal_tests::redis::RedisServer;
use tepal_tests::wait::eventually;

use crate::{SOON, finished, healthy};

/// Requests of one test: far more than a pipe holds lines.
const REQUESTS: usize = 2000;
/// More than an idle service needs to stop, less than DRAIN_TIMEOUT_SECONDS.
const STOPPED_WITHIN: Duration = Duration::from_secs(8);
const DROPPED: &str = "tepal_log_lines_dropped_total";

#[tokio::test]
async fn a_full_disk_costs_lines_of_the_log_and_nothing_else() {
    serves_without_an_output(Sink::FullDisk).await;
}

#[tokio::test]
async fn a_closed_pipe_costs_lines_of_the_log_and_nothing_else() {
    serves_without_an_output(Sink::ClosedPipe).await;
}

#[tokio::test]
async fn a_pipe_that_nobody_reads_costs_lines_of_the_log_and_nothing_else() {
    serves_without_an_output(Sink::UnreadPipe).await;
}

async fn serves_without_an_output(sink: Sink) {
    let redis = RedisServer::shipped().start().await;
    let proxy = Proxy::start_writing_to(sink, &redis.proxy_url(), &[]).await;
    let worker = Worker::start_writing_to(sink, &redis.worker_url(), &[]).await;
    let client = proxy.client();
    healthy(&client).await;

    let mut ids = Vec::new();
    for _ in 0..REQUESTS {
        ids.push(client.predict(&json!([[5.1, 3.5, 1.4, 0.2]])).await);
    }
    finished(&client, &ids).await;
    // The buffer holds the lines of some thousand requests.
    let monitor = Client::new(&format!("http://{}", worker.metrics_addr()));
    let dropped = async || {
        submit_many(&client).await;
        let counts = [&client, &monitor].map(async |client| client.get("/metrics").await.metric(DROPPED));
        let [of_proxy, of_worker] = counts;
        of_proxy.await > 0.0 && of_worker.await > 0.0
    };
    eventually(SOON, "both services to drop lines and count them", dropped).await;

    assert_eq!((client.get("/livez").await.status, monitor.get("/livez").await.status), (200, 200));
    for service in [&*proxy, &*worker] {
        service.sigterm();
        let status = service.wait_exit(STOPPED_WITHIN).await;
        assert_eq!(status.code(), Some(0), "{}", service.process());
    }
}

async fn submit_many(client: &Client) {
    let jobs = vec![json!({"data": [[5.1, 3.5, 1.4, 0.2]]}); 1000];
    assert_eq!(client.post_json("/predict/batch", &json!(jobs)).await.status, 202);
}

#[test]
fn a_program_whose_output_is_closed_ends_with_a_code_and_not_with_a_panic() {
    let programs: [(&str, &[&str]); 5] = [
        ("tepal-proxy", &["doctor"]),
        ("tepal-worker", &["doctor"]),
        ("tepal-proxy", &["key", "new"]),
        ("tepal-proxy", &["--listen-addr", "nowhere"]),
        ("tepal-worker", &["--num-workers", "none"]),
    ];
    for (name, args) in programs {
        for output in [closed_pipe, full_disk] {
            let status =
                Command::new(binary_path(name)).args(args).stdout(output()).stderr(output()).status();
            assert_eq!(status.unwrap().code(), Some(1), "{name} {args:?}");
        }
    }
}

fn closed_pipe() -> Stdio {
    std::io::pipe().unwrap().1.into()
}

fn full_disk() -> Stdio {
    std::fs::File::options().write(true).open("/dev/full").unwrap().into()
}
