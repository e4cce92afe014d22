//! What the scripts of the workers return, as types.

use std::{mem, time::Duration};

use redis::Value;

use crate::{
    job::{Attempt, Claim, Delivery, JobId, ModelName, Stream},
    queue::{
        error::StoreError,
        scripts::{COMPLETE, NamedScript, RENEW, START, VALUES_PER_JOB, granted, reply::Reply},
    },
};

/// The jobs that a consumer claimed, and what was found on the way.
#[derive(Debug, Default)]
pub struct Granted {
    /// The claimed jobs.
    pub deliveries: Vec<Delivery>,
    /// Jobs that failed instead of being claimed.
    pub ended: Vec<EndedJob>,
    /// The model of each reclaimed job: the lease of its former worker had lapsed.
    pub reclaimed: Vec<ModelName>,
    /// Number of entries without an outstanding job, which were deleted.
    pub stale: u64,
    /// Where the next search for due entries of each stream continues; empty if there was no search.
    pub cursors: Vec<String>,
    /// Number of consumer groups that were missing and have been created.
    pub groups_created: u64,
}

/// A job that failed when it was to be claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedJob {
    /// Which job.
    pub job_id: JobId,
    /// Its error code.
    pub code: String,
    /// Its model.
    pub model: ModelName,
}

impl Granted {
    /// Reads the reply of `start`.
    pub(crate) fn started(value: Value, streams: &[Stream]) -> Result<Self, StoreError> {
        Self::parse(&START, value, streams)
    }

    /// Whether any entry was delivered.
    pub(crate) fn found_something(&self) -> bool {
        !self.deliveries.is_empty() || !self.ended.is_empty() || self.stale > 0
    }

    /// Reads the reply of a call for these streams.
    pub(crate) fn parse(script: &NamedScript, value: Value, streams: &[Stream]) -> Result<Self, StoreError> {
        let mut reply = Reply::new(script, value)?;
        reply.expect("granted")?;
        let mut jobs = reply.values("the jobs")?;
        if jobs.len() % VALUES_PER_JOB != 0 {
            return Err(script.unexpected(format!("{} values of jobs", jobs.len())));
        }
        let deliveries = jobs.chunks_exact_mut(VALUES_PER_JOB).map(|job| delivery(script, job, streams));
        let deliveries = deliveries.collect::<Result<_, _>>()?;
        let ended = reply
            .list("the ended jobs")?
            .into_iter()
            .map(|mut job| {
                let (job_id, code) = (job.parsed("a job id")?, job.text("an error code")?);
                let number = job.count("a stream number")?;
                Ok(EndedJob { job_id, code, model: numbered(script, number, streams)?.model })
            })
            .collect::<Result<_, StoreError>>()?;
        let reclaimed = reply.text("the reclaimed jobs")?;
        let reclaimed = reclaimed
            .split_ascii_whitespace()
            .map(|number| {
                let number =
                    number.parse().map_err(|_| script.unexpected(format!("stream number {number}")))?;
                Ok(numbered(script, number, streams)?.model)
            })
            .collect::<Result<_, StoreError>>()?;
        let stale = reply.count("the stale entries")?;
        let cursors = reply.texts("the cursors")?;
        let groups_created = reply.count("the created groups")?;
        Ok(Self { deliveries, ended, reclaimed, stale, cursors, groups_created })
    }
}

/// Reads the values of one claimed job. `grant.lua` decides their order.
fn delivery(script: &NamedScript, job: &mut [Value], streams: &[Stream]) -> Result<Delivery, StoreError> {
    let mut value = |place: usize| job.get_mut(place).map(|value| mem::replace(value, Value::Nil));
    let claim = Claim {
        job_id: script.parsed(value(const { granted("id") }), "a job id")?,
        token: script.count(value(const { granted("attempt") }), "an attempt token")?,
        stream: stream(script, value(const { granted("number") }), streams)?,
    };
    let left_ms = script.int(value(const { granted("left_ms") }), "the time left")?;
    let attempt = Attempt {
        claim,
        released: script.count(value(const { granted("released") }), "the releases")?,
        lost: script.count(value(const { granted("lost") }), "the lost leases")?,
        broken: script.count(value(const { granted("broken") }), "the calls that broke off")?,
        age: Duration::from_millis(script.count(value(const { granted("age_ms") }), "the job's age")?),
        time_left: u64::try_from(left_ms).ok().map(Duration::from_millis),
        request_id: script.optional_text(value(const { granted("request_id") }), "a request id")?,
        traceparent: script.optional_text(value(const { granted("traceparent") }), "a traceparent")?,
    };
    Ok(Delivery { attempt, input: script.bytes(value(const { granted("input") }), "the input")? })
}

/// The stream with this number, counted from 1.
fn stream(script: &NamedScript, value: Option<Value>, streams: &[Stream]) -> Result<Stream, StoreError> {
    numbered(script, script.count(value, "a stream number")?, streams)
}

fn numbered(script: &NamedScript, number: u64, streams: &[Stream]) -> Result<Stream, StoreError> {
    let stream = usize::try_from(number).ok().and_then(|number| streams.get(number.wrapping_sub(1)));
    stream.copied().ok_or_else(|| script.unexpected(format!("stream number {number}")))
}

/// The outcome of a settlement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The job is settled, now or by an earlier call of the same attempt.
    Done {
        /// Whether the job's entry was lost, and a new one was written.
        repaired: bool,
    },
    /// The attempt no longer holds the job. Nothing was changed.
    Fenced(Fence),
}

/// Why an attempt no longer holds its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fence {
    /// Another attempt holds or ended it.
    Lost,
    /// A client cancelled it.
    Cancelled,
    /// It does not exist, or not any more.
    Missing,
}

impl Fence {
    const ALL: [Self; 3] = [Self::Lost, Self::Cancelled, Self::Missing];

    fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fence| fence.word() == word)
    }

    /// Its word in scripts, log and metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Cancelled => "cancelled",
            Self::Missing => "missing",
        }
    }
}

impl Settled {
    pub(crate) fn parse(script: &NamedScript, value: Value) -> Result<Self, StoreError> {
        let mut reply = Reply::new(script, value)?;
        match reply.word()?.as_str() {
            "failed" => Ok(Self::Done { repaired: false }),
            "retried" | "released" => Ok(Self::Done { repaired: reply.count("the repairs")? > 0 }),
            word => Self::from_word(&reply, word),
        }
    }

    /// Reads the reply of a call that completes `count` jobs.
    pub(crate) fn parse_completed(value: Value, count: usize) -> Result<Vec<Self>, StoreError> {
        let mut reply = Reply::new(&COMPLETE, value)?;
        let mut next = || match reply.word()?.as_str() {
            "completed" => Ok(Self::Done { repaired: false }),
            word => Self::from_word(&reply, word),
        };
        (0..count).map(|_| next()).collect()
    }

    fn from_word(reply: &Reply<'_>, word: &str) -> Result<Self, StoreError> {
        Fence::from_word(word).map_or_else(|| reply.unknown(word), |fence| Ok(Self::Fenced(fence)))
    }
}

pub(crate) fn parse_renewed(value: Value) -> Result<Vec<(JobId, Fence)>, StoreError> {
    let mut reply = Reply::new(&RENEW, value)?;
    reply.expect("renewed")?;
    let lost = reply.list("the lost jobs")?;
    lost.into_iter()
        .map(|mut job| {
            let id = job.parsed("a job id")?;
            let word = job.text("a reason")?;
            Fence::from_word(&word).map_or_else(|| job.unknown(&word), |fence| Ok((id, fence)))
        })
        .collect()
}
