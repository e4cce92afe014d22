//! The Lua scripts, and one enum for the outcomes of each. A script is its own shebang line, then the shared parts,
//! then its body; the first word of its reply decides the outcome, and an unknown word is an error.

use std::sync::LazyLock;

use redis::{Cmd, RedisError, Script, Value, aio::MultiplexedConnection};

use crate::{
    error::StoreError,
    job::{Attempt, JobId, JobStatus, Priority},
};

const LIB: &str = include_str!("lua/lib.lua");
const GRANT: &str = include_str!("lua/grant.lua");

/// A script with its name, for error messages.
#[derive(Debug)]
pub(crate) struct NamedScript {
    pub(crate) name: &'static str,
    script: Script,
}

macro_rules! scripts {
    ($($constant:ident = $name:literal $(+ $part:ident)*;)*) => {
        $(pub(crate) static $constant: LazyLock<NamedScript> = LazyLock::new(|| NamedScript {
            name: $name,
            script: Script::new(&assemble(include_str!(concat!("lua/", $name, ".lua")), &[$($part),*])),
        });)*

        /// Every script's name and source file.
        #[cfg(test)]
        const SOURCES: &[(&str, &str)] = &[$(($name, include_str!(concat!("lua/", $name, ".lua")))),*];

        /// Loads every script, so that a later EVALSHA finds it.
        pub(crate) async fn load_all(connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
            $($constant.script.load_async(connection).await?;)*
            Ok(())
        }
    };
}

scripts! {
    SUBMIT = "submit" + LIB;
    TAKE = "take" + LIB + GRANT;
    START = "start" + LIB + GRANT;
    RENEW = "renew" + LIB;
    COMPLETE = "complete" + LIB;
    RETRY = "retry" + LIB;
    RELEASE = "release" + LIB;
    FAIL = "fail" + LIB;
    CANCEL = "cancel" + LIB;
    REQUEUE = "requeue" + LIB;
    EXPIRE = "expire" + LIB;
    HEARTBEAT = "heartbeat" + LIB;
    WORKERS = "workers" + LIB;
    SWEEP = "sweep" + LIB;
    PRUNE = "prune" + LIB;
}

/// Puts the shared parts between a script's shebang line and its body.
fn assemble(source: &str, parts: &[&str]) -> String {
    let (shebang, body) = source.split_once('\n').unwrap_or((source, ""));
    format!("{shebang}\n{}{body}", parts.concat())
}

impl NamedScript {
    /// `EVALSHA` with these keys; arguments are added by the caller.
    pub(crate) fn call<K: redis::ToRedisArgs>(&self, keys: &[K]) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(self.script.get_hash()).arg(keys.len());
        for key in keys {
            command.arg(key);
        }
        command
    }

    fn unexpected(&self, reason: impl Into<String>) -> StoreError {
        StoreError::Protocol { script: self.name, reason: reason.into() }
    }
}

/// Reads a reply's parts in order. Each read names what it expects, for the error.
pub(crate) struct Reply<'a> {
    script: &'a NamedScript,
    parts: std::vec::IntoIter<Value>,
}

impl<'a> Reply<'a> {
    pub(crate) fn new(script: &'a NamedScript, value: Value) -> Result<Self, StoreError> {
        match value {
            Value::Array(parts) => Ok(Self { script, parts: parts.into_iter() }),
            other => Err(script.unexpected(format!("{other:?} instead of a list"))),
        }
    }

    /// The outcome's word.
    pub(crate) fn word(&mut self) -> Result<String, StoreError> {
        self.text("the outcome")
    }

    pub(crate) fn text(&mut self, what: &str) -> Result<String, StoreError> {
        match self.parts.next() {
            Some(Value::BulkString(bytes)) => {
                String::from_utf8(bytes).map_err(|_| self.script.unexpected(format!("{what} is not UTF-8")))
            }
            Some(Value::SimpleString(text)) => Ok(text),
            other => Err(self.script.unexpected(format!("{other:?} instead of {what}"))),
        }
    }

    fn optional_text(&mut self, what: &str) -> Result<Option<String>, StoreError> {
        Ok(Some(self.text(what)?).filter(|text| !text.is_empty()))
    }

    fn int(&mut self, what: &str) -> Result<i64, StoreError> {
        match self.parts.next() {
            Some(Value::Int(number)) => Ok(number),
            other => Err(self.script.unexpected(format!("{other:?} instead of {what}"))),
        }
    }

    pub(crate) fn count(&mut self, what: &str) -> Result<u64, StoreError> {
        let number = self.int(what)?;
        u64::try_from(number).map_err(|_| self.script.unexpected(format!("{number} as {what}")))
    }

    fn list(&mut self, what: &str) -> Result<Vec<Reply<'a>>, StoreError> {
        match self.parts.next() {
            Some(Value::Array(items)) => {
                items.into_iter().map(|item| Reply::new(self.script, item)).collect()
            }
            other => Err(self.script.unexpected(format!("{other:?} instead of {what}"))),
        }
    }

    fn parsed<T: std::str::FromStr>(&mut self, what: &str) -> Result<T, StoreError> {
        let text = self.text(what)?;
        text.parse().map_err(|_| self.script.unexpected(format!("`{text}` as {what}")))
    }

    pub(crate) fn unknown<T>(&self, word: &str) -> Result<T, StoreError> {
        Err(self.script.unexpected(format!("unknown outcome `{word}`")))
    }
}

/// What became of a submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Submitted {
    /// The job waits in the queue.
    Accepted,
    /// The idempotency key's earlier request made this job.
    Duplicate {
        /// That job.
        job_id: JobId,
        /// Where it stands.
        status: JobStatus,
    },
    /// The idempotency key belongs to another request.
    Conflict,
    /// The queue is at its limit.
    Full {
        /// Jobs that have not ended.
        outstanding: u64,
    },
}

impl Submitted {
    pub(crate) fn parse(value: Value) -> Result<Self, StoreError> {
        let mut reply = Reply::new(&SUBMIT, value)?;
        match reply.word()?.as_str() {
            "accepted" => Ok(Self::Accepted),
            "duplicate" => {
                Ok(Self::Duplicate { job_id: reply.parsed("a job id")?, status: reply.parsed("a status")? })
            }
            "conflict" => Ok(Self::Conflict),
            "full" => Ok(Self::Full { outstanding: reply.count("the queue's length")? }),
            word => reply.unknown(word),
        }
    }
}

/// The jobs that a consumer was granted, and what was found on the way.
#[derive(Debug, Default)]
pub struct Granted {
    /// One attempt for each job.
    pub attempts: Vec<Attempt>,
    /// Jobs that failed instead of being granted, with their error codes.
    pub ended: Vec<(JobId, String)>,
    /// Jobs whose former worker's lease had lapsed.
    pub reclaimed: u64,
    /// Entries without an outstanding job, removed.
    pub stale: u64,
    /// Where the next look for due entries goes on, for each stream.
    pub cursors: [String; 3],
    /// Consumer groups that were missing and have been created.
    pub groups_created: u64,
}

impl Granted {
    pub(crate) fn parse(script: &NamedScript, value: Value) -> Result<Self, StoreError> {
        let mut reply = Reply::new(script, value)?;
        match reply.word()?.as_str() {
            "granted" => {}
            word => return reply.unknown(word),
        }
        let attempts = reply.list("the jobs")?.into_iter().map(attempt).collect::<Result<_, _>>()?;
        let ended = reply
            .list("the ended jobs")?
            .into_iter()
            .map(|mut job| Ok((job.parsed("a job id")?, job.text("an error code")?)))
            .collect::<Result<_, StoreError>>()?;
        let reclaimed = reply.count("the reclaimed jobs")?;
        let stale = reply.count("the stale entries")?;
        let mut cursors = <[String; 3]>::default();
        if let Some(Value::Array(parts)) = reply.parts.next() {
            let mut given = Reply { script, parts: parts.into_iter() };
            for cursor in cursors.iter_mut().take(given.parts.len()) {
                *cursor = given.text("a cursor")?;
            }
        }
        let groups_created = reply.count("the created groups")?;
        Ok(Self { attempts, ended, reclaimed, stale, cursors, groups_created })
    }
}

fn attempt(mut job: Reply<'_>) -> Result<Attempt, StoreError> {
    let job_id = job.parsed("a job id")?;
    let number = job.count("a stream number")?;
    let priority = usize::try_from(number)
        .ok()
        .and_then(|number| Priority::ALL.get(number.wrapping_sub(1)))
        .ok_or_else(|| job.script.unexpected(format!("stream number {number}")))?;
    Ok(Attempt {
        job_id,
        priority: *priority,
        token: job.count("an attempt token")?,
        released: job.count("the releases")?,
        lost: job.count("the lost leases")?,
        age: std::time::Duration::from_millis(job.count("the job's age")?),
        time_left: u64::try_from(job.int("the time left")?).ok().map(std::time::Duration::from_millis),
        request_id: job.optional_text("a request id")?,
        traceparent: job.optional_text("a traceparent")?,
        input: job.text("the input")?,
    })
}

/// What became of an attempt's wish to end its job or to give it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It is done, now or by an earlier call of the same attempt.
    Done {
        /// Whether the job's stream entry was gone and had to be written anew.
        repaired: bool,
    },
    /// The attempt no longer holds the job; nothing was changed.
    Fenced(Fence),
}

/// Why an attempt no longer holds its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fence {
    /// Another attempt holds or ended it.
    Lost,
    /// Its client cancelled it.
    Cancelled,
    /// It does not exist (any more).
    Missing,
}

impl Fence {
    fn from_word(word: &str) -> Option<Self> {
        match word {
            "lost" => Some(Self::Lost),
            "cancelled" => Some(Self::Cancelled),
            "missing" => Some(Self::Missing),
            _ => None,
        }
    }
}

impl Settled {
    pub(crate) fn parse(script: &NamedScript, value: Value) -> Result<Self, StoreError> {
        let mut reply = Reply::new(script, value)?;
        match reply.word()?.as_str() {
            "completed" | "failed" => Ok(Self::Done { repaired: false }),
            "retried" | "released" => Ok(Self::Done { repaired: reply.count("the repairs")? > 0 }),
            word => match Fence::from_word(word) {
                Some(fence) => Ok(Self::Fenced(fence)),
                None => reply.unknown(word),
            },
        }
    }
}

pub(crate) fn parse_renewed(value: Value) -> Result<Vec<(JobId, Fence)>, StoreError> {
    let mut reply = Reply::new(&RENEW, value)?;
    match reply.word()?.as_str() {
        "renewed" => {}
        word => return reply.unknown(word),
    }
    let lost = reply.list("the lost jobs")?;
    lost.into_iter()
        .map(|mut job| {
            let id = job.parsed("a job id")?;
            let word = job.text("a reason")?;
            Fence::from_word(&word).map_or_else(|| job.unknown(&word), |fence| Ok((id, fence)))
        })
        .collect()
}

/// What became of a client's wish to cancel a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// It is cancelled, now or earlier.
    Done,
    /// It completed or failed before.
    Ended(JobStatus),
    /// No such job.
    Missing,
}

impl Cancelled {
    pub(crate) fn parse(value: Value) -> Result<Self, StoreError> {
        let mut reply = Reply::new(&CANCEL, value)?;
        match reply.word()?.as_str() {
            "cancelled" => Ok(Self::Done),
            "ended" => Ok(Self::Ended(reply.parsed("a status")?)),
            "missing" => Ok(Self::Missing),
            word => reply.unknown(word),
        }
    }
}

/// What became of a client's wish to run a failed or cancelled job again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requeued {
    /// The new job waits in the queue.
    Accepted,
    /// The old job has not failed and was not cancelled.
    NotRepeatable(JobStatus),
    /// No such job.
    Missing,
    /// The queue is at its limit.
    Full {
        /// Jobs that have not ended.
        outstanding: u64,
    },
}

impl Requeued {
    pub(crate) fn parse(value: Value) -> Result<Self, StoreError> {
        let mut reply = Reply::new(&REQUEUE, value)?;
        match reply.word()?.as_str() {
            "accepted" => Ok(Self::Accepted),
            "unfinished" => Ok(Self::NotRepeatable(reply.parsed("a status")?)),
            "missing" => Ok(Self::Missing),
            "full" => Ok(Self::Full { outstanding: reply.count("the queue's length")? }),
            word => reply.unknown(word),
        }
    }
}

/// What a look at a job's deadlines did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expired {
    /// A deadline was missed: the job has failed with this error code.
    Failed(String),
    /// Nothing was missed, or the job had ended.
    Kept(JobStatus),
    /// No such job.
    Missing,
}

impl Expired {
    pub(crate) fn parse(value: Value) -> Result<Self, StoreError> {
        let mut reply = Reply::new(&EXPIRE, value)?;
        match reply.word()?.as_str() {
            "expired" => Ok(Self::Failed(reply.text("an error code")?)),
            "kept" => Ok(Self::Kept(reply.parsed("a status")?)),
            "missing" => Ok(Self::Missing),
            word => reply.unknown(word),
        }
    }
}

pub(crate) fn parse_recorded(value: Value) -> Result<u64, StoreError> {
    let mut reply = Reply::new(&HEARTBEAT, value)?;
    match reply.word()?.as_str() {
        "recorded" => reply.count("the live workers"),
        word => reply.unknown(word),
    }
}

/// A live worker's last heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerRecord {
    /// The worker process.
    pub id: String,
    /// What it said of itself, JSON.
    pub state: String,
    /// Time since it said so.
    pub silence: std::time::Duration,
}

pub(crate) fn parse_workers(value: Value) -> Result<Vec<WorkerRecord>, StoreError> {
    let mut reply = Reply::new(&WORKERS, value)?;
    match reply.word()?.as_str() {
        "workers" => {}
        word => return reply.unknown(word),
    }
    let workers = reply.list("the workers")?;
    workers
        .into_iter()
        .map(|mut worker| {
            Ok(WorkerRecord {
                id: worker.text("a worker id")?,
                state: worker.text("a worker's state")?,
                silence: std::time::Duration::from_millis(worker.count("a silence")?),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers that follow `prefix` in `text`, e.g. `KEYS[3]` -> 3; `[4...]` counts as open-ended.
    fn numbers(text: &str, prefix: &str) -> Vec<usize> {
        text.match_indices(prefix)
            .filter_map(|(at, _)| {
                let digits: String =
                    text[at + prefix.len()..].chars().take_while(char::is_ascii_digit).collect();
                digits.parse().ok()
            })
            .collect()
    }

    #[test]
    fn every_header_names_the_highest_key_and_argument_that_the_body_uses() {
        for (name, source) in SOURCES {
            let (header, body): (Vec<_>, Vec<_>) =
                source.lines().skip(1).partition(|line| line.starts_with("--"));
            let (header, body) = (header.join("\n"), body.join("\n"));
            assert!(header.starts_with(&format!("-- {name}: ")), "{name}: the header names another script");
            assert!(header.contains("-- Returns  "), "{name}: the header does not say what it returns");
            for prefix in ["KEYS[", "ARGV["] {
                let documented = numbers(&header, prefix).into_iter().max().unwrap_or(0);
                let used = numbers(&body, prefix).into_iter().max().unwrap_or(0);
                let open_ended = header.contains(&format!("{prefix}{documented}...]"));
                let indexed = body.contains(&format!("{prefix}1 + "))
                    || body.contains("ipairs(KEYS)")
                    || body.contains(&format!("{prefix}tonumber"));
                assert!(
                    used <= documented && (used == documented || open_ended || indexed),
                    "{name}: header documents {prefix}{documented}], body uses {prefix}{used}]"
                );
            }
        }
    }

    #[test]
    fn the_shebang_stays_on_the_first_line() {
        let code = assemble("#!lua flags=allow-oom\n-- x\nreturn 1\n", &["local a = 1\n", "local b = 2\n"]);
        assert_eq!(code, "#!lua flags=allow-oom\nlocal a = 1\nlocal b = 2\n-- x\nreturn 1\n");
    }

    #[test]
    fn an_unknown_word_is_an_error_that_names_the_script() {
        let error = Submitted::parse(Value::Array(vec![Value::BulkString(b"maybe".to_vec())]));
        let error = error.map_err(|error| error.to_string());
        assert_eq!(error, Err("unexpected answer of script `submit`: unknown outcome `maybe`".to_owned()));
    }
}
