//! `tepal-proxy doctor`: checks the environment of this proxy. Changes nothing.

use std::{os::unix::fs::PermissionsExt as _, path::Path};

use tepal_shared::{
    process::{
        doctor::{Finding, Report},
        telemetry,
    },
    queue::{
        Queue,
        doctor::{Expected, Service, examine_redis},
        heartbeat::{BackendState, WorkerState},
        link::Redis,
        views::Views,
    },
};

use crate::{
    config::{Config, GrpcPort},
    edge::access::Access,
    http::certificate,
};

/// Checks Redis, the API keys, the certificate and the workers.
pub async fn examine(config: &Config) -> Report {
    let common = &config.common;
    let replicas = config.replication.map_or(0, |policy| policy.replicas);
    let is_cluster = common.redis.is_cluster();
    let expected =
        Expected { service: Service::Proxy, partitions: common.policy.partitions, replicas, is_cluster };
    let mut report = examine_redis(&common.redis, &common.keys, expected).await;
    let without_redis = !report.is_healthy();
    report.findings.extend(config.api_keys_file.as_deref().map(keys));
    report.findings.extend(config.grpc.map(|grpc| port_of_grpc(grpc, config.certificate.is_some())));
    report.findings.extend(config.certificate.iter().flat_map(certificate::examine));
    // The list of workers needs Redis, and the right to run scripts.
    if !without_redis {
        report.findings.push(workers(config).await);
    }
    report
}

/// Says where clients of gRPC connect.
fn port_of_grpc(grpc: GrpcPort, is_secured: bool) -> Finding {
    let form = if is_secured { "with TLS" } else { "without TLS" };
    Finding::ok("gRPC", format!("clients connect to {}, {form}", grpc.listen_addr))
}

/// Checks the rights of the key file. Its content was checked with the settings.
fn keys(path: &Path) -> Finding {
    const SUBJECT: &str = "API keys";
    let shown = path.display();
    let mode = std::fs::metadata(path).map(|metadata| metadata.permissions().mode());
    match (Access::open(path), mode) {
        (Err(error), _) => Finding::wrong(SUBJECT, telemetry::chain(&error), format!("correct {shown}")),
        (Ok(_), Ok(mode)) if mode & 0o002 != 0 => {
            let what = format!("everybody on this machine may write {shown} and add keys");
            Finding::wrong(SUBJECT, what, format!("chmod o-w {shown}"))
        }
        (Ok((access, _)), _) => Finding::ok(SUBJECT, access.summary()),
    }
}

/// A proxy may start before the first worker, so no worker at all is not a failure.
async fn workers(config: &Config) -> Finding {
    const SUBJECT: &str = "workers";
    let common = &config.common;
    let workers = match Redis::open(common.redis.clone()) {
        Ok(redis) => {
            let queue = Queue::new(redis, common.keys.clone(), common.policy.clone());
            Views::new(queue).workers().await
        }
        Err(error) => return Finding::unknown(SUBJECT, error.to_string()),
    };
    let states: Vec<WorkerState> = match workers {
        Ok(workers) => workers.iter().filter_map(|worker| serde_json::from_str(&worker.state).ok()).collect(),
        Err(error) => return Finding::unknown(SUBJECT, telemetry::chain(&error)),
    };
    if states.is_empty() {
        return Finding::unknown(SUBJECT, "no worker is alive: jobs are accepted and wait");
    }
    match states.iter().find(|state| state.backend_state == BackendState::Down) {
        None => Finding::ok(SUBJECT, format!("{} alive, and their models answer", states.len())),
        Some(down) => {
            let why = down.backend_detail.as_deref().unwrap_or("no reason given");
            let detail = format!(
                "{} alive, but the model of one on {} does not answer: {why}",
                states.len(),
                down.host
            );
            Finding::wrong(SUBJECT, detail, "run `tepal-worker doctor` with that worker's settings")
        }
    }
}
