//! Checks the Redis servers of a service and says how to fix what is wrong. Changes nothing.

mod default_user;
mod rights;
mod server;
mod several;

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tokio::time::Instant;

use crate::{
    process::{
        doctor::{Finding, Report},
        telemetry,
        tls::Reason,
    },
    queue::{
        Policy, Queue,
        error::{StoreError, WrongTopology},
        keys::{Keys, STORED_FORMAT},
        link::{ConnectionSettings, FoundFormat, Redis, found_format},
    },
};

pub use default_user::warn_about_default_user;
pub use rights::Service;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What a service requires of Redis.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// The service.
    pub service: Service,
    /// Number of partitions.
    pub partitions: u16,
    /// Replicas that must confirm a submission.
    pub replicas: u32,
    /// Whether Redis is a cluster.
    pub is_cluster: bool,
}

/// Checks the Redis servers with these settings.
pub async fn examine_redis(settings: &ConnectionSettings, keys: &Keys, expected: Expected) -> Report {
    let (redis, reached) = reach(settings).await;
    let mut report = Report { findings: vec![reached] };
    let Some(redis) = redis else { return report };
    let policy = Policy { partitions: expected.partitions, ..Policy::default() };
    let queue = Queue::new(redis, keys.clone(), policy);
    report.findings.extend(several::examine(&queue, settings).await);
    let servers = queue.servers();
    for server in &servers {
        let (findings, address) = match server.dedicated_at(Duration::ZERO).await {
            Ok((mut connection, address)) => {
                (server::examine(&mut connection, keys, expected).await, address)
            }
            Err(error) => (vec![unreachable(settings, &error)], server.address().to_owned()),
        };
        let of = |finding: Finding| match servers.len() {
            1 => finding,
            _ => Finding { subject: format!("{address} {}", finding.subject), ..finding },
        };
        report.findings.extend(findings.into_iter().map(of));
    }
    if let Ok(mut connection) = queue.primary(0).dedicated(Duration::ZERO).await {
        let partitions = if expected.is_cluster { 0 } else { expected.partitions };
        report.findings.push(stored_format(&mut connection, keys, partitions).await);
    }
    report
}

async fn reach(settings: &ConnectionSettings) -> (Option<Redis>, Finding) {
    const SUBJECT: &str = "Redis";
    let address = &settings.display;
    let started = Instant::now();
    let connected = async {
        let redis = Redis::open(settings.clone().without_format())?;
        let mut connection = redis.dedicated(Duration::ZERO).await?;
        redis::cmd("PING").exec_async(&mut connection).await?;
        Ok::<_, StoreError>(redis)
    };
    let error = match tokio::time::timeout(CONNECT_TIMEOUT, connected).await {
        Ok(Ok(redis)) => {
            let took = started.elapsed().as_secs_f64() * 1000.0;
            return (Some(redis), Finding::ok(SUBJECT, format!("{address} answered in {took:.1} ms")));
        }
        Ok(Err(error)) => error,
        Err(_) => {
            let seconds = CONNECT_TIMEOUT.as_secs();
            let what = format!("{address} did not answer within {seconds} s");
            return (
                None,
                Finding::wrong(
                    SUBJECT,
                    what,
                    "check whether Redis is busy, and whether a firewall drops packets",
                ),
            );
        }
    };
    (None, unreachable(settings, &error))
}

fn unreachable(settings: &ConnectionSettings, error: &StoreError) -> Finding {
    let Reason { what, fix } = settings.explain(error).unwrap_or_else(|| without_tls(error));
    Finding::wrong("Redis", format!("{}: {what}", settings.display), fix)
}

/// Why Redis cannot be used, if TLS is not the cause.
fn without_tls(error: &StoreError) -> Reason {
    let fix = match error {
        StoreError::Forbidden(_) => {
            "set REDIS_USERNAME and REDIS_PASSWORD, or REDIS_URL, and add +ping to the rights of the user"
        }
        StoreError::NotReady(_) => "wait until Redis has loaded its data",
        _ => "start Redis, or set REDIS_HOST and REDIS_PORT, or REDIS_URL",
    };
    let what = match error {
        StoreError::Ambiguous(cause) => cause.to_string(),
        error => telemetry::chain(error),
    };
    Reason { what, fix: fix.to_owned() }
}

async fn stored_format(connection: &mut MultiplexedConnection, keys: &Keys, partitions: u16) -> Finding {
    const SUBJECT: &str = "stored format";
    match found_format(connection, keys, partitions).await {
        Ok(FoundFormat::Own) => Finding::ok(SUBJECT, format!("the queue has format {STORED_FORMAT}")),
        Ok(FoundFormat::None) => {
            Finding::ok(SUBJECT, format!("the queue has no jobs yet; they will have format {STORED_FORMAT}"))
        }
        Ok(FoundFormat::Other(found)) => {
            let refused = WrongTopology::StoredFormat { found };
            Finding::wrong(SUBJECT, refused.to_string(), refused.fix())
        }
        Err(error) => Finding::unknown(SUBJECT, rights::unable("GET", &error)),
    }
}
