//! Real faults make the conditions of alerts true, seen by a real Prometheus. (promtool's tests cover how long a condition
//! must hold, and the alerts that need a minute's wait, many lost workers or API keys.)

use std::time::Duration;

use serde_json::json;
use tepal_tests::model_server::Behaviour;
use tepal_tests::wait::eventually;

use crate::alerts::alerts;
use crate::prometheus::Prometheus;
use crate::stack::Stack;

const SOON: Duration = Duration::from_secs(60);

struct Watch {
    prometheus: Prometheus,
    seen: Vec<String>,
}

impl Watch {
    /// Waits until the condition of the alert holds.
    async fn sees(&mut self, alert: &str) {
        self.waits(alert, true).await;
        self.seen.push(alert.to_owned());
    }

    async fn waits(&self, name: &str, holds: bool) {
        let alert = alerts().into_iter().find(|alert| alert.name == name).unwrap_or_else(|| panic!("{name}"));
        eventually(SOON, &format!("{name} to hold: {holds}"), async || {
            let samples = self.prometheus.query(&alert.expr).await?;
            if samples.is_empty() == holds { Err(format!("{samples:?}")) } else { Ok(()) }
        })
        .await;
    }
}

/// Alerts that no fault of the test fires.
const QUIET: [&str; 9] = [
    "TepalQueueAgeHigh",
    "TepalOutcomesFenced",
    "TepalJobsReclaimed",
    "TepalWrongKeys",
    // The files of the models are the repository's own; tests of both services break theirs.
    "TepalModelFailed",
    // No task fails, and the output accepts every line; compose/alerts.test.yml and other tests cover both.
    "TepalTaskFailures",
    "TepalLogLinesDropped",
    // The stack has no TLS.
    "TepalCertificateExpires",
    // Redis ends once; compose/alerts.test.yml covers more.
    "TepalRedisRestarting",
];

#[tokio::test]
async fn alerts_notice_real_faults() {
    let stack = Stack::start().await;
    let prometheus = Prometheus::start(&stack.targets()).await;
    let mut watch = Watch { prometheus, seen: Vec::new() };

    delete_jobs(&stack, &mut watch).await;
    break_workers(&stack, &mut watch).await;
    break_redis(&stack, &mut watch).await;
    stack.proxies[1].kill9();
    watch.sees("TepalProxyDown").await;

    let all = alerts().into_iter().map(|alert| alert.name);
    let unseen: Vec<String> = all.filter(|name| !watch.seen.contains(name)).collect();
    assert_eq!(unseen, QUIET);
}

/// Turns persistence off for a while, and deletes jobs that no worker has yet.
async fn delete_jobs(stack: &Stack, watch: &mut Watch) {
    stack.redis.cli(&["CONFIG", "SET", "appendonly", "no"]);
    watch.sees("TepalAofFailing").await;
    stack.redis.cli(&["CONFIG", "SET", "appendonly", "yes"]);
    watch.waits("TepalAofFailing", false).await;

    // Redis delivers a job to a stopped worker's blocked read.
    stack.workers.iter().for_each(|worker| worker.sigstop());
    let client = stack.proxies[0].client();
    let low = json!({ "data": [[5.1, 3.5, 1.4, 0.2]], "priority": "low" });
    for _ in 0..20 {
        assert_eq!(client.post_json("/predict", &low).await.status, 202);
    }
    stack.redis.cli(&["DEL", "{predict_queue:0}:stream:iris:low"]);
    stack.workers.iter().for_each(|worker| worker.sigcont());
    watch.sees("TepalEntriesRepaired").await;
}

/// The model of half of the workers returns unusable answers, then becomes unreachable. Then the workers die.
async fn break_workers(stack: &Stack, watch: &mut Watch) {
    let [onnx, serving] = &stack.workers;
    stack.model_server.set_behaviour(Behaviour::WrongShape);
    watch.sees("TepalJobFailureRatioHigh").await;
    watch.sees("TepalDeadLettersGrowing").await;
    stack.model_server.set_available(false);
    watch.sees("TepalBackendUnreachableForWorker").await;
    onnx.kill9();
    watch.sees("TepalBackendDown").await;
    watch.sees("TepalWorkerDown").await;
    serving.kill9();
    watch.sees("TepalNoLiveWorker").await;
}

/// Redis loses its data, gets the wrong policy and less memory than is in use, and dies.
async fn break_redis(stack: &Stack, watch: &mut Watch) {
    stack.redis.cli(&["FLUSHALL"]);
    watch.sees("TepalDataLost").await;
    stack.redis.cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    stack.redis.cli(&["CONFIG", "SET", "maxmemory", "100kb"]);
    watch.sees("TepalRedisEvicting").await;
    watch.sees("TepalRedisMemoryHigh").await;
    watch.sees("TepalErrorRatioHigh").await;
    stack.redis.kill9();
    watch.sees("TepalRedisDown").await;
}
