//! Reads jobs.

use std::{mem, num::ParseIntError};

use redis::{Cmd, Value};

use crate::{
    content::{self, Content},
    job::{Job, JobId, JobResult, JobStatus, Priority},
    queue::{error::StoreError, views::handle::Views},
    tensor::stored_outputs,
};

/// The fields of a job hash that [`job_from`] reads, in its order.
const FIELDS: [&str; 16] = [
    "status",
    "m",
    "priority",
    "at",
    "waited_ms",
    "took_ms",
    "next_attempt_at",
    "attempt",
    "released",
    "result",
    "error",
    "error_code",
    "retry_of",
    "queue_deadline",
    "run_deadline",
    "owner",
];

/// The place of `result` among them.
const RESULT: usize = 9;

/// Number of jobs that are read in one round trip.
const AT_ONCE: usize = 50;
/// Reads of more jobs than this take turns.
const FEW: usize = 10;

impl Views {
    /// Reads a job; `None` if it does not exist, or not any more.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn job(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        let value = self.queue.primary(id.partition()).run(&self.read_call(id)).await?;
        job_from(id, value)
    }

    /// Reads jobs, in order; `None` for a job that does not exist.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn jobs(&self, ids: &[JobId]) -> Result<Vec<Option<Job>>, StoreError> {
        self.read_all(ids, |id| self.read_call(id)).await
    }

    /// Reads jobs, a few in each round trip. Large reads of all requests take turns, so a request that submits or reads one job
    /// waits for at most one of their round trips on the shared connection.
    async fn read_all(
        &self,
        ids: &[JobId],
        call: impl Fn(JobId) -> Cmd,
    ) -> Result<Vec<Option<Job>>, StoreError> {
        let mut jobs = Vec::with_capacity(ids.len());
        for some in ids.chunks(AT_ONCE) {
            // The semaphore is never closed, so this always gets a turn.
            let _turn = if ids.len() > FEW { self.large_reads.acquire().await.ok() } else { None };
            let calls = some.iter().map(|id| (id.partition(), call(*id))).collect();
            let outcomes = self.queue.ask(calls).await;
            for (id, outcome) in some.iter().zip(outcomes) {
                jobs.push(job_from(*id, outcome?)?);
            }
        }
        Ok(jobs)
    }

    /// Reads a large result as it is stored; `None` if the job does not exist any more.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn large_result(&self, id: JobId) -> Result<Option<Vec<u8>>, StoreError> {
        let mut command = redis::cmd("HGET");
        command.arg(self.queue.keys.job(id)).arg("large_result");
        match self.queue.primary(id.partition()).run(&command).await? {
            Value::Nil => Ok(None),
            value => redis::from_redis_value(value).map(Some).map_err(StoreError::unread),
        }
    }

    fn read_call(&self, id: JobId) -> Cmd {
        let mut command = redis::cmd("HMGET");
        command.arg(self.queue.keys.job(id)).arg(&FIELDS[..]);
        command
    }

    /// Reads jobs without their results, for a listing; `None` for a job that does not exist.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn listed(&self, ids: &[JobId]) -> Result<Vec<Option<Job>>, StoreError> {
        // No job has a field without a name, so its value is nil.
        let fields = FIELDS.map(|field| if field == "result" { "" } else { field });
        let call = |id| {
            let mut command = redis::cmd("HMGET");
            command.arg(self.queue.keys.job(id)).arg(&fields[..]);
            command
        };
        self.read_all(ids, call).await
    }
}

pub(super) fn job_from(id: JobId, value: Value) -> Result<Option<Job>, StoreError> {
    let mut fields: Vec<Value> = redis::from_redis_value(value).map_err(StoreError::unread)?;
    // The only field that may not be text.
    let result = fields.get_mut(RESULT).map_or(Value::Nil, |value| mem::replace(value, Value::Nil));
    let fields = fields.into_iter().map(redis::from_redis_value).collect::<Result<Vec<Option<String>>, _>>();
    let mut fields = fields.map_err(StoreError::unread)?.into_iter();
    let mut next = || fields.next().flatten();
    let Some(status) = next() else { return Ok(None) };
    let status: JobStatus = status.parse().map_err(StoreError::unread)?;
    let model = next().unwrap_or_default();
    let priority = next().map_or(Ok(Priority::Normal), |word| word.parse()).map_err(StoreError::unread)?;
    let mut number = || next().and_then(|text| text.parse::<u64>().ok());
    let created_at_ms = number().unwrap_or_default();
    // Stored as spans, which take a fifth of the bytes of a time.
    let mut time = || number().map(|span_ms| created_at_ms.saturating_add(span_ms));
    let (started_at_ms, finished_at_ms) = (time(), time());
    let next_attempt_at_ms = number();
    let (attempt, released) = (number().unwrap_or(0), number().unwrap_or(0));
    let (_, error, error_code, retry_of) = (next(), next(), next(), next());
    let (queue_deadline, run_deadline, owner) = (next(), next(), next());
    let deadline = if started_at_ms.is_some() { run_deadline } else { queue_deadline };
    Ok(Some(Job {
        id,
        status,
        model,
        priority,
        created_at_ms,
        started_at_ms,
        finished_at_ms,
        next_attempt_at_ms,
        attempts: attempt.saturating_sub(released),
        result: result_from(result)?,
        error,
        error_code,
        retry_of: retry_of.and_then(|text| text.parse().ok()),
        deadline_ms: deadline.and_then(|text| text.parse().ok()),
        owner,
    }))
}

/// Reads the field `result`. No JSON text begins like one of the other forms: with the mark of [`stored_outputs`] or of [`content`], or
/// with the sign before the size of a large result.
fn result_from(value: Value) -> Result<Option<JobResult>, StoreError> {
    let Some(bytes) = redis::from_redis_value::<Option<Vec<u8>>>(value).map_err(StoreError::unread)? else {
        return Ok(None);
    };
    if stored_outputs::is_tensors(&bytes) {
        return Ok(Some(JobResult::Tensors(stored_outputs::read_owned(&bytes).map_err(StoreError::unread)?)));
    }
    if content::is_bytes(&bytes)
        && let Content::Bytes { content_type, bytes } = Content::read(&bytes).map_err(StoreError::unread)?
    {
        let (content_type, bytes) = (content_type.to_owned(), bytes.to_vec());
        return Ok(Some(JobResult::Bytes { content_type, bytes }));
    }
    let text = String::from_utf8(bytes).map_err(StoreError::unread)?;
    let size = |text: &str| text.parse().map_err(StoreError::unread::<ParseIntError>);
    let mut rest = text.chars();
    let sign = rest.next();
    let rest = rest.as_str();
    Ok(Some(match sign {
        Some('@') => JobResult::Large { bytes: size(rest)? },
        Some('#') => JobResult::LargeTensors { bytes: size(rest)? },
        Some('%') => {
            let (bytes, content_type) = rest.split_once(' ').unwrap_or((rest, ""));
            JobResult::LargeBytes { bytes: size(bytes)?, content_type: content_type.to_owned() }
        }
        _ => JobResult::Inline(text),
    }))
}
