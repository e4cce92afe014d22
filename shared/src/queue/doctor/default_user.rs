//! Checks whether Redis's default user may replay the append-only file. Redis replays it as that user, whether the user is on or off,
//! and drops every transaction with a command that the user may not run.

use std::time::Duration;

use redis::{RedisError, Value, aio::MultiplexedConnection};
use tracing::warn;

use super::rights::{self, unable};
use crate::{
    process::doctor::{CheckResult, Finding},
    queue::{keys::Keys, link::Redis},
};

const SUBJECT: &str = "default user";
const FIX: &str = "before Redis restarts, run ACL SETUSER default ~* &* +@all, and add these rights to the ACL file; the \
                    user cannot log in while it is off";
/// Pause before the next try.
const PAUSE: Duration = Duration::from_secs(1);

/// What Redis writes to its append-only file for the scripts of Tepal and for expired keys.
const REPLAYED: &[&str] = &[
    "SELECT 0",
    "MULTI",
    "EXEC",
    "HSET $job f v",
    "HDEL $job f",
    "HSET $workers f v",
    "HSET $models f v",
    "HDEL $models f",
    "PEXPIREAT $job 1",
    "DEL $job",
    "UNLINK $job",
    "SET $idem v",
    "XADD $stream * f v",
    "XADD $log * f v",
    "XADD $dead * f v",
    "XCLAIM $stream workers c 0 0-1",
    "XACK $stream workers 0-1",
    "XDEL $stream 0-1",
    "XGROUP CREATE $stream workers 0 MKSTREAM",
    "XGROUP CREATECONSUMER $stream workers c",
    "XGROUP DELCONSUMER $stream workers c",
    "XGROUP SETID $stream workers 0",
];

/// Checks when Redis answers, and logs a warning unless the default user may replay the file.
pub async fn warn_about_default_user(redis: Redis, keys: Keys) {
    let found = loop {
        redis.up().await;
        match redis.dedicated(Duration::ZERO).await {
            Ok(mut connection) => break default_user(&mut connection, &keys).await,
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    };
    match found.result {
        CheckResult::Ok => {}
        CheckResult::Unknown => warn!(action = "default_user_unknown", reason = found.detail),
        CheckResult::Wrong => warn!(action = "default_user_lacks_rights", reason = found.detail),
    }
}

/// Whether the default user may run all replayed commands.
pub(super) async fn default_user(connection: &mut MultiplexedConnection, keys: &Keys) -> Finding {
    let commands = rights::with_keys(REPLAYED, keys, 0);
    match first_refused(connection, &commands).await {
        Ok(None) => Finding::ok(SUBJECT, "it may replay the append-only file"),
        Ok(Some(command)) => {
            let command = command.join(" ");
            let what = format!(
                "it may not run {command}: Redis replays its append-only file as this user, and the next restart loses \
                 every job"
            );
            Finding::wrong(SUBJECT, what, FIX)
        }
        Err(error) => Finding::unknown(SUBJECT, unable("ACL DRYRUN", &error)),
    }
}

async fn first_refused<'a>(
    connection: &mut MultiplexedConnection,
    commands: &'a [Vec<String>],
) -> Result<Option<&'a [String]>, RedisError> {
    for command in commands {
        // Any other answer than OK is the reason of a refusal.
        let answer: Value =
            redis::cmd("ACL").arg("DRYRUN").arg("default").arg(command).query_async(connection).await?;
        if answer != Value::Okay {
            return Ok(Some(command));
        }
    }
    Ok(None)
}
