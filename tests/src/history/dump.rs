//! The contents of one queue in Redis: every job, the work streams, and the number of idempotency keys.

use std::collections::{BTreeMap, BTreeSet};

use redis::aio::MultiplexedConnection;
use redis::{RedisResult, pipe};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A dump of one queue. The last one of a run is taken when everything had time to finish.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Final {
    /// Job id -> its hash.
    pub jobs: BTreeMap<String, JobDump>,
    /// Job id -> the input that is kept apart from the hash, of jobs that failed or were cancelled.
    #[serde(default)]
    pub inputs: BTreeMap<String, String>,
    /// Key of a work stream -> its state. The log and the dead letters are no work streams.
    pub streams: BTreeMap<String, StreamDump>,
    /// Number of idempotency keys.
    pub idempotency_keys: u64,
    /// Sum of the repairs in the services' metrics.
    pub repairs: u64,
}

/// One job's hash.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct JobDump {
    /// Field -> value, as stored.
    pub fields: BTreeMap<String, String>,
    /// Remaining TTL, in milliseconds; `None` if the key has no TTL.
    pub ttl_ms: Option<u64>,
}

/// One stream with its consumer groups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamDump {
    /// Entries in the stream.
    pub length: u64,
    /// Entries delivered and not acknowledged, over all groups.
    pub pending: u64,
}

impl JobDump {
    /// The job's status, empty if it has none.
    #[must_use]
    pub fn status(&self) -> &str {
        self.fields.get("status").map_or("", String::as_str)
    }

    /// The name of the job's model, empty if it has none.
    #[must_use]
    pub fn model(&self) -> &str {
        self.fields.get("m").map_or("", String::as_str)
    }

    /// Whether the job has its outcome.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        crate::http::TERMINAL.contains(&self.status())
    }

    /// A numeric field; 0 if it is missing.
    #[must_use]
    pub fn number(&self, field: &str) -> u64 {
        self.fields.get(field).and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// A field that holds JSON text. That of a large result is in a field of its own.
    #[must_use]
    pub fn json(&self, field: &str) -> Option<Value> {
        let large = if field == "result" { self.fields.get("large_result") } else { None };
        serde_json::from_str(large.or_else(|| self.fields.get(field))?).ok()
    }
}

impl Final {
    /// Reads the whole queue, all partitions (keys `{queue:p}:...`). Not atomic: dump when nothing runs any
    /// more, or to compare terminal jobs, which never change.
    ///
    /// # Errors
    /// When Redis fails.
    pub async fn read(connection: &mut MultiplexedConnection, queue: &str) -> RedisResult<Self> {
        let mut dump = Self::default();
        let (mut jobs, mut inputs) = (Vec::new(), Vec::new());
        for key in keys(connection, &format!("{{{queue}:*")).await? {
            match key.split_once("}:").map(|(_, rest)| rest) {
                Some(rest) if rest.starts_with("stream:") => {
                    dump.streams.insert(key.clone(), stream(connection, &key).await?);
                }
                Some(rest) if rest.starts_with("idem:") => dump.idempotency_keys += 1,
                Some(rest) if rest.starts_with("job:") => jobs.push(key),
                Some(rest) if rest.starts_with("input:") => inputs.push(key),
                _ => {}
            }
        }
        for some in jobs.chunks(500) {
            dump.jobs.extend(read_jobs(connection, some).await?);
        }
        for some in inputs.chunks(500) {
            dump.inputs.extend(read_inputs(connection, some).await?);
        }
        Ok(dump)
    }
}

/// SCAN may name a key twice; the set does not.
async fn keys(connection: &mut MultiplexedConnection, pattern: &str) -> RedisResult<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    let mut cursor = 0_u64;
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(1_000);
        let (next, some): (u64, Vec<String>) = scan.query_async(connection).await?;
        all.extend(some);
        if next == 0 {
            return Ok(all);
        }
        cursor = next;
    }
}

async fn stream(connection: &mut MultiplexedConnection, key: &str) -> RedisResult<StreamDump> {
    let (length, groups): (u64, Vec<BTreeMap<String, redis::Value>>) =
        pipe().cmd("XLEN").arg(key).cmd("XINFO").arg("GROUPS").arg(key).query_async(connection).await?;
    let pending = groups.iter().filter_map(|group| group.get("pending"));
    let pending = pending.map(redis::from_redis_value_ref::<u64>);
    Ok(StreamDump { length, pending: pending.sum::<Result<u64, _>>()? })
}

async fn read_inputs(
    connection: &mut MultiplexedConnection,
    keys: &[String],
) -> RedisResult<Vec<(String, String)>> {
    let inputs: Vec<Option<Vec<u8>>> = redis::cmd("MGET").arg(keys).query_async(connection).await?;
    let ids = keys.iter().map(|key| key.split_once("}:input:").map_or("", |(_, id)| id));
    Ok(ids.zip(inputs).filter_map(|(id, input)| Some((id.to_owned(), numbers(&input?)))).collect())
}

/// A stored input as a flat list of JSON. The models of fault runs have one input, of 32-bit floats or 64-bit integers. The form is
/// described in shared/src/tensor/stored.rs; this is a second reader of it.
fn numbers(stored: &[u8]) -> String {
    const INT64: u8 = 8;
    const FP32: u8 = 11;
    let Some((first, mut rest)) = stored.split_first() else { return String::new() };
    for _ in 0..first & 0xf {
        let length = rest.iter().position(|byte| byte & 0x80 == 0).map_or(rest.len(), |last| last + 1);
        rest = &rest[length..];
    }
    let values: Vec<Value> = match first >> 4 {
        INT64 => rest.as_chunks().0.iter().map(|value| i64::from_le_bytes(*value).into()).collect(),
        FP32 => rest.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value).into()).collect(),
        _ => return String::from_utf8_lossy(stored).into_owned(),
    };
    Value::Array(values).to_string()
}

async fn read_jobs(
    connection: &mut MultiplexedConnection,
    keys: &[String],
) -> RedisResult<Vec<(String, JobDump)>> {
    let mut reads = pipe();
    for key in keys {
        reads.cmd("HGETALL").arg(key).cmd("PTTL").arg(key);
    }
    let replies: Vec<redis::Value> = reads.query_async(connection).await?;
    let mut jobs = Vec::new();
    for (key, reply) in keys.iter().zip(replies.chunks(2)) {
        let [fields, ttl_ms] = reply else { continue };
        let ttl_ms: i64 = redis::from_redis_value_ref(ttl_ms)?;
        let fields: BTreeMap<String, Vec<u8>> = redis::from_redis_value_ref(fields)?;
        let text = |(field, value): (String, Vec<u8>)| match field.as_str() {
            "input" => (field, numbers(&value)),
            _ => (field, String::from_utf8_lossy(&value).into_owned()),
        };
        let fields = fields.into_iter().map(text).collect();
        // A key that expired between the scan and this read is no job any more.
        if ttl_ms != -2 {
            let id = key.split_once("}:job:").map_or("", |(_, id)| id);
            jobs.push((id.to_owned(), JobDump { fields, ttl_ms: u64::try_from(ttl_ms).ok() }));
        }
    }
    Ok(jobs)
}
