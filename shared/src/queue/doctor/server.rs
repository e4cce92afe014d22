//! Checks of one server: its version, its settings, its clock.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use redis::{FromRedisValue as _, Value, aio::MultiplexedConnection};

use super::{
    Expected, default_user,
    rights::{self, Service, unable},
};
use crate::{
    process::doctor::Finding,
    queue::{info::Info, keys::Keys},
};

/// The oldest version of each server that has all commands and script functions that Tepal uses.
const OLDEST: [(&str, [u64; 2]); 2] = [("redis", [7, 0]), ("valkey", [8, 0])];
/// The value in compose/redis.conf. Below it, the hash of a small job takes more than twice the memory.
const LISTPACK_VALUE: u64 = 1024;
/// Times in answers and logs come from two clocks. A larger difference would mislead a reader.
const LARGEST_CLOCK_DIFFERENCE: Duration = Duration::from_secs(2);

/// Checks the server of this connection, which may become the primary, or is one.
pub(super) async fn examine(
    connection: &mut MultiplexedConnection,
    keys: &Keys,
    expected: Expected,
) -> Vec<Finding> {
    let info = info(connection).await;
    let mut findings = vec![
        version(connection).await,
        rights::rights(connection, keys, expected).await,
        default_user::default_user(connection, keys).await,
        from_info("persistence", &info, persistence),
        fsync(connection).await,
        from_info("eviction", &info, eviction),
        listpack(connection).await,
        clock(connection).await,
    ];
    let is_replica = info.as_ref().is_ok_and(|info| info.get("role") == Some("slave"));
    if expected.service == Service::Proxy && !is_replica {
        findings.extend(replicas(&info, u64::from(expected.replicas)));
    }
    findings
}

/// The text of INFO, or why Redis did not send it.
type Asked = Result<Info, String>;

async fn info(connection: &mut MultiplexedConnection) -> Asked {
    let text: String =
        redis::cmd("INFO").query_async(connection).await.map_err(|error| unable("INFO", &error))?;
    Ok(Info::parse(&text))
}

fn from_info(subject: &str, info: &Asked, check: impl Fn(&Info) -> Finding) -> Finding {
    match info {
        Ok(fields) => check(fields),
        Err(why) => Finding::unknown(subject, why),
    }
}

/// Every user may send HELLO.
async fn version(connection: &mut MultiplexedConnection) -> Finding {
    let hello = redis::cmd("HELLO").query_async::<Value>(connection).await;
    let fields = hello.and_then(|reply| Ok(BTreeMap::<String, Value>::from_redis_value(reply)?));
    match fields {
        Err(error) => Finding::unknown("version", format!("HELLO failed: {error}")),
        Ok(fields) => {
            let text = |name: &str| {
                let value = fields.get(name).cloned().unwrap_or(Value::Nil);
                String::from_redis_value(value).unwrap_or_default()
            };
            judge_version(&text("server"), &text("version"))
        }
    }
}

fn judge_version(server: &str, version: &str) -> Finding {
    let seen = format!("{server} {version}");
    let mut numbers = version.split('.').map(|number| number.parse::<u64>().unwrap_or_default());
    let seen_numbers = [numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default()];
    match OLDEST.iter().find(|(name, _)| *name == server) {
        None => Finding::unknown("version", format!("{seen}; only Redis and Valkey are tested")),
        Some((_, oldest)) if seen_numbers >= *oldest => Finding::ok("version", seen),
        Some((_, [major, minor])) => {
            Finding::wrong("version", format!("{seen} is too old"), format!("use {major}.{minor} or later"))
        }
    }
}

fn persistence(info: &Info) -> Finding {
    const SUBJECT: &str = "persistence";
    if info.get("aof_enabled").unwrap_or_default() != "1" {
        let fix = "CONFIG SET appendonly yes, and add `appendonly yes` to the configuration";
        return Finding::wrong(SUBJECT, "there is no append-only file: a restart of Redis loses jobs", fix);
    }
    for (name, what) in [("aof_last_write_status", "write to"), ("aof_last_bgrewrite_status", "rewrite of")] {
        if info.get(name).unwrap_or_default() != "ok" {
            let what = format!("the last {what} the append-only file failed");
            return Finding::wrong(
                SUBJECT,
                what,
                "see the log of Redis; in most cases its disk is full or it lacks memory",
            );
        }
    }
    Finding::ok(SUBJECT, "there is an append-only file, and its last write and rewrite succeeded")
}

fn eviction(info: &Info) -> Finding {
    let policy = info.get("maxmemory_policy").unwrap_or_default();
    if policy != "noeviction" {
        let what = format!("maxmemory-policy is {policy}: Redis may evict accepted jobs");
        let fix = "CONFIG SET maxmemory-policy noeviction, and add it to the configuration";
        return Finding::wrong("eviction", what, fix);
    }
    let limit = match info.get("maxmemory").unwrap_or_default() {
        "0" => "there is no memory limit".to_owned(),
        bytes => format!("new jobs are refused at {bytes} bytes"),
    };
    Finding::ok("eviction", format!("noeviction; {limit}"))
}

/// Whether enough replicas confirm each job. If none must, whether a failover can lose jobs.
fn replicas(info: &Asked, needed: u64) -> Option<Finding> {
    const SUBJECT: &str = "replicas";
    let info = match info {
        Ok(info) => info,
        Err(why) => return (needed > 0).then(|| Finding::unknown(SUBJECT, why)),
    };
    let seen = info.number("connected_slaves");
    // Redis writes this field only with `min-replicas-to-write`.
    let must_be_in_step = info.get("min_slaves_good_slaves").is_some();
    if seen < needed {
        let what = format!("{seen} connected, but {needed} must confirm each job: every submission fails");
        return Some(Finding::wrong(SUBJECT, what, "connect replicas, or lower REPLICAS_REQUIRED"));
    }
    match (seen, needed) {
        (0, _) => None,
        (_, 0) if must_be_in_step => {
            Some(Finding::ok(SUBJECT, format!("{seen} connected, and min-replicas-to-write is set")))
        }
        (_, 0) => {
            let what = format!(
                "{seen} connected, but the primary accepts jobs without them: after a failover, an old primary still \
                 accepts jobs, which are then lost"
            );
            let fix = "CONFIG SET min-replicas-to-write 1 on each node, and add it to the configuration, or set \
                        REPLICAS_REQUIRED=1";
            Some(Finding::wrong(SUBJECT, what, fix))
        }
        _ => Some(Finding::ok(SUBJECT, format!("{seen} connected, {needed} must confirm"))),
    }
}

pub(super) async fn setting(connection: &mut MultiplexedConnection, name: &str) -> Result<String, String> {
    let reply = redis::cmd("CONFIG").arg("GET").arg(name).query_async(connection).await;
    let mut settings: BTreeMap<String, String> = reply.map_err(|error| unable("CONFIG GET", &error))?;
    settings.remove(name).ok_or_else(|| format!("this server has no setting {name}"))
}

async fn fsync(connection: &mut MultiplexedConnection) -> Finding {
    match setting(connection, "appendfsync").await {
        Ok(when) if when == "no" => Finding::wrong(
            "fsync",
            "appendfsync is no: a power failure loses up to half a minute of jobs",
            "CONFIG SET appendfsync always, and add it to the configuration",
        ),
        Ok(when) if when == "everysec" => Finding::ok(
            "fsync",
            "appendfsync is everysec: a crash of Redis or a power failure may lose the last two seconds of jobs",
        ),
        Ok(when) => Finding::ok("fsync", format!("appendfsync is {when}")),
        Err(why) => Finding::unknown("fsync", why),
    }
}

async fn listpack(connection: &mut MultiplexedConnection) -> Finding {
    const NAME: &str = "hash-max-listpack-value";
    match setting(connection, NAME).await {
        Ok(limit) if limit.parse::<u64>().is_ok_and(|limit| limit >= LISTPACK_VALUE) => {
            Finding::ok("memory", format!("{NAME} is {limit}"))
        }
        Ok(limit) => {
            let what = format!("{NAME} is {limit}: each job takes more than twice the memory it needs");
            let fix = format!("CONFIG SET {NAME} {LISTPACK_VALUE}, and add it to the configuration");
            Finding::wrong("memory", what, fix)
        }
        Err(why) => Finding::unknown("memory", why),
    }
}

async fn clock(connection: &mut MultiplexedConnection) -> Finding {
    let asked = SystemTime::now();
    let time = redis::cmd("TIME").query_async::<(u64, u64)>(connection).await;
    let answered = SystemTime::now();
    match time {
        Ok((seconds, micros)) => {
            let theirs = UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_micros(micros);
            judge_clock(apart(theirs, asked, answered))
        }
        Err(error) => Finding::unknown("clock", unable("TIME", &error)),
    }
}

/// Difference between `theirs` and the nearest time between `asked` and `answered`.
fn apart(theirs: SystemTime, asked: SystemTime, answered: SystemTime) -> Duration {
    let before = asked.duration_since(theirs).unwrap_or_default();
    let after = theirs.duration_since(answered).unwrap_or_default();
    before.max(after)
}

fn judge_clock(apart: Duration) -> Finding {
    if apart <= LARGEST_CLOCK_DIFFERENCE {
        return Finding::ok("clock", format!("within {} ms of Redis's", apart.as_millis()));
    }
    let what = format!("{} ms from Redis's: times in answers and logs do not match", apart.as_millis());
    Finding::wrong("clock", what, "synchronise the clocks of both machines (NTP)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::doctor::CheckResult;

    fn info(pairs: &[(&str, &str)]) -> Info {
        let lines: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}:{value}\r\n")).collect();
        Info::parse(&lines.concat())
    }

    #[test]
    fn a_version_is_compared_by_its_numbers() {
        let result_of = |server, version| judge_version(server, version).result;
        assert_eq!(result_of("redis", "7.0.15"), CheckResult::Ok);
        assert_eq!(result_of("redis", "10.2.0"), CheckResult::Ok);
        assert_eq!(result_of("redis", "6.2.14"), CheckResult::Wrong);
        assert_eq!(result_of("valkey", "7.2.5"), CheckResult::Wrong);
        assert_eq!(result_of("dragonfly", "1.0"), CheckResult::Unknown);
    }

    #[test]
    fn a_clock_is_judged_by_what_the_round_trip_cannot_explain() {
        let at = |ms| UNIX_EPOCH + Duration::from_millis(ms);
        assert_eq!(apart(at(1_500), at(1_000), at(2_000)), Duration::ZERO);
        assert_eq!(apart(at(400), at(1_000), at(2_000)), Duration::from_millis(600));
        assert_eq!(apart(at(5_000), at(1_000), at(2_000)), Duration::from_secs(3));
        assert_eq!(judge_clock(Duration::from_millis(900)).result, CheckResult::Ok);
        assert_eq!(judge_clock(Duration::from_secs(3)).result, CheckResult::Wrong);
    }

    #[test]
    fn too_few_replicas_and_a_failing_file_are_wrong() {
        let of = |pairs, needed| replicas(&Ok(info(pairs)), needed).map(|finding| finding.result);
        assert_eq!(of(&[("connected_slaves", "2")], 2), Some(CheckResult::Ok));
        assert_eq!(of(&[("connected_slaves", "1")], 2), Some(CheckResult::Wrong));
        assert_eq!(of(&[("connected_slaves", "0")], 0), None);
        let failing = [("aof_enabled", "1"), ("aof_last_write_status", "err")];
        assert!(
            persistence(&info(&failing)).detail.contains("the last write to the append-only file failed")
        );
    }
}
