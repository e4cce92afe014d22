//! Which jobs a worker holds, as Redis sees it: the pending entries of its consumers.

use std::collections::BTreeMap;

use redis::aio::MultiplexedConnection;
use redis::{RedisResult, Value, from_redis_value_ref};

use super::models::ModelKind;

/// The queue of a run.
pub(super) const QUEUE: &str = "predict_queue";
const PRIORITIES: [&str; 3] = ["high", "normal", "low"];
const GROUP: &str = "workers";
const MOST: usize = 1_000;

/// An entry that a consumer holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    stream: String,
    entry: String,
    consumer: String,
    pub(super) job: String,
    /// The newest grant of the job; 0 if the entry was delivered but not granted yet.
    pub(super) attempt: u64,
}

/// The streams of all models.
fn streams() -> impl Iterator<Item = String> {
    ModelKind::ALL.into_iter().flat_map(|model| {
        PRIORITIES.map(|priority| format!("{{{QUEUE}:0}}:stream:{}:{priority}", model.name()))
    })
}

/// Number of unfinished jobs, in any state.
pub(super) async fn outstanding(connection: &mut MultiplexedConnection) -> RedisResult<u64> {
    let mut sum = 0;
    for stream in streams() {
        sum += redis::cmd("XLEN").arg(stream).query_async::<u64>(connection).await?;
    }
    Ok(sum)
}

/// What the consumers of the worker process `pid` hold. They are named `<host>-<pid>-<random>-<number>`.
pub(super) async fn of_worker(connection: &mut MultiplexedConnection, pid: u32) -> RedisResult<Vec<Held>> {
    let mut held = Vec::new();
    for stream in streams() {
        for consumer in consumers(connection, &stream).await? {
            if consumer.contains(&format!("-{pid}-")) {
                held.extend(of_consumer(connection, &stream, &consumer).await?);
            }
        }
    }
    Ok(held)
}

/// How many of these entries that consumer no longer holds.
pub(super) async fn given_away(connection: &mut MultiplexedConnection, held: &[Held]) -> RedisResult<u64> {
    let mut gone = 0;
    for was in held {
        let still: Vec<Value> = redis::cmd("XPENDING")
            .arg(&[&was.stream, GROUP, &was.entry, &was.entry, "1", &was.consumer])
            .query_async(connection)
            .await?;
        gone += u64::from(still.is_empty());
    }
    Ok(gone)
}

/// The consumers of a stream that hold anything.
async fn consumers(connection: &mut MultiplexedConnection, stream: &str) -> RedisResult<Vec<String>> {
    let mut command = redis::cmd("XINFO");
    command.arg("CONSUMERS").arg(stream).arg(GROUP);
    let all: Vec<BTreeMap<String, Value>> = match command.query_async(connection).await {
        Ok(all) => all,
        // The first take makes stream and group.
        Err(error) if matches!(error.code(), Some("NOGROUP" | "ERR")) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for consumer in &all {
        if let (Some(name), Some(pending)) = (consumer.get("name"), consumer.get("pending"))
            && from_redis_value_ref::<u64>(pending)? > 0
        {
            names.push(from_redis_value_ref(name)?);
        }
    }
    Ok(names)
}

async fn of_consumer(
    connection: &mut MultiplexedConnection,
    stream: &str,
    consumer: &str,
) -> RedisResult<Vec<Held>> {
    let mut command = redis::cmd("XPENDING");
    command.arg(stream).arg(GROUP).arg("-").arg("+").arg(MOST).arg(consumer);
    let pending: Vec<(String, String, u64, u64)> = command.query_async(connection).await?;
    let mut held = Vec::new();
    for (entry, consumer, ..) in pending {
        let found: Vec<(String, BTreeMap<String, String>)> =
            redis::cmd("XRANGE").arg(stream).arg(&entry).arg(&entry).query_async(connection).await?;
        // An entry that ended meanwhile is not held any more.
        let Some(job) = found.first().and_then(|(_, fields)| fields.get("id")).cloned() else { continue };
        let key = format!("{{{QUEUE}:0}}:job:{job}");
        let attempt: Option<u64> = redis::cmd("HGET").arg(key).arg("attempt").query_async(connection).await?;
        held.push(Held { stream: stream.to_owned(), entry, consumer, job, attempt: attempt.unwrap_or(0) });
    }
    Ok(held)
}
