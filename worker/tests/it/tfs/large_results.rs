//! A result that is larger than `MAX_RESULT_BYTES` fails its own job and nothing else.

use tepal_tests::model_server::{ModelServer, ServerSpec};

use crate::{
    flowers::{input, input_of_rows},
    queue::{Queue, rows},
    settings::Settings,
};

#[tokio::test]
async fn a_result_that_is_too_large_fails_its_job_alone_and_at_once() {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    let inputs = [input(5.1), input_of_rows(20), input(5.2)];
    let ids = queue.submit_all(inputs).await;

    let settings = Settings::serving(&server).one_at_a_time().with("MAX_RESULT_BYTES", 1000);
    let worker = queue.worker(settings).await;

    let error = "The result is larger than 1000 bytes".to_owned();
    assert_eq!(queue.failed(ids[1]).await, (error, "result_too_large".to_owned(), 1));
    queue.all_completed(&[ids[0], ids[2]]).await;
    queue.assert_drained().await;
    assert_eq!(rows(&server), [22], "another call would give the same result");
    assert_eq!(worker.logs().find("backend_down"), None);
    let page = worker.metrics().await.text();
    for line in [
        "tepal_jobs_failed_total{model=\"iris\",code=\"result_too_large\"} 1\n",
        "tepal_worker_batch_rows_limit{model=\"iris\"} 256\n",
        "tepal_breaker_open{model=\"iris\"} 0\n",
        "tepal_batch_splits_total{model=\"iris\",reason=\"too_large\"} 0\n",
    ] {
        assert!(page.contains(line), "no {line}{page}");
    }
}

#[tokio::test]
async fn a_result_may_be_as_large_as_the_limit() {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    let settings = Settings::serving(&server);
    let worker = queue.worker(settings.clone()).await;
    let first = queue.submit(input(5.1)).await;
    let size = queue.completed(first).await.result.unwrap().most_bytes();
    drop(worker);

    for (limit, is_in_time) in [(size, true), (size - 1, false)] {
        let _worker = queue.worker(settings.clone().with("MAX_RESULT_BYTES", limit)).await;
        let id = queue.submit(input(5.1)).await;
        let code = queue.ended(id).await.error_code;
        assert_eq!(code.as_deref(), (!is_in_time).then_some("result_too_large"), "{limit}");
    }
}
