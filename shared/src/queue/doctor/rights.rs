//! The commands and keys that each service needs, and those that its user may not use.

use redis::{RedisError, Script, aio::MultiplexedConnection};

use super::Expected;
use crate::{
    job::{JobId, MOST_PARTITIONS, ModelName, Priority, Stream},
    process::doctor::Finding,
    queue::keys::Keys,
};

/// A service of Tepal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// The proxy.
    Proxy,
    /// The worker.
    Worker,
}

/// `$name` stands for a key of the queue. These are the commands of the shipped ACL files.
const PROXY: &[&str] = &[
    "PING",
    "INFO",
    "TIME",
    "WAIT 0 1",
    "ACL DRYRUN default PING",
    "EVALSHA sha 0",
    "SCRIPT LOAD script",
    "HSET $job f v",
    "HGET $job f",
    "HMGET $job f",
    "HGETALL $workers",
    "HGETALL $models",
    "HSET $models f v",
    "HDEL $job f",
    "HDEL $workers f",
    "EXISTS $job",
    "EXPIRE $job 1",
    "GET $idem",
    "SET $idem v",
    "GET $input",
    "SET $input v EX 1",
    "HGET $quota f",
    "HSET $quota f v",
    "HDEL $quota f",
    "ZADD $quota 0 v",
    "ZREM $quota v",
    "ZRANGEBYLEX $quota - +",
    "GET $ahead",
    "SET $ahead v",
    "GET $format",
    "SET $format v NX",
    "GET $secret",
    "SET $secret v NX GET",
    "XADD $stream * f v",
    "XADD $log * f v",
    "XADD $dead * f v",
    "XLEN $stream",
    "XLEN $dead",
    "XRANGE $stream - +",
    "XRANGE $log - +",
    "XREVRANGE $log + -",
    "XPENDING $stream workers",
    "XINFO STREAM $log",
    "XACK $stream workers 0-1",
    "XDEL $stream 0-1",
    "SPUBLISH $job word",
    "SSUBSCRIBE $job",
    "SUNSUBSCRIBE $job",
];

const WORKER: &[&str] = &[
    "PING",
    "TIME",
    "ACL DRYRUN default PING",
    "CLIENT ID",
    "CLIENT UNBLOCK 1",
    "EVALSHA sha 0",
    "SCRIPT LOAD script",
    "HSET $job f v",
    "HSET $workers f v",
    "HSET $models f v",
    "HGETALL $models",
    "HDEL $models f",
    "HGET $job f",
    "HMGET $job f",
    "HGETALL $workers",
    "HDEL $job f",
    "HDEL $workers f",
    "EXPIRE $job 1",
    "GET $idem",
    "EXPIRE $idem 1",
    "SET $input v EX 1",
    "HGET $quota f",
    "HSET $quota f v",
    "HDEL $quota f",
    "ZADD $quota 0 v",
    "ZREM $quota v",
    "ZRANGEBYLEX $quota - +",
    "RENAME $quota $quota",
    "EXPIRE $quota 1",
    "GET $format",
    "SET $format v NX",
    "GET $alone",
    "SET $alone v EX 1",
    "XADD $stream * f v",
    "XADD $dead * f v",
    "XRANGE $log - +",
    "XRANGE $stream - +",
    "XPENDING $stream workers",
    "XINFO STREAM $log",
    "XINFO GROUPS $stream",
    "XINFO CONSUMERS $stream workers",
    "XREADGROUP GROUP workers c STREAMS $stream >",
    "XAUTOCLAIM $stream workers c 1 0-0",
    "XCLAIM $stream workers c 1 0-1",
    "XACK $stream workers 0-1",
    "XDEL $stream 0-1",
    "XDEL $log 0-1",
    "XGROUP CREATE $stream workers 0 MKSTREAM",
    "XGROUP SETID $stream workers 0",
    "XGROUP DELCONSUMER $stream workers c",
    "SPUBLISH $job word",
];

/// What both services need in a cluster.
const CLUSTER: &[&str] = &["ASKING", "CLUSTER SLOTS"];

impl Service {
    /// A read of the queue's secret, if the service must not have the right to it.
    fn forbidden(self, keys: &Keys) -> Option<Vec<String>> {
        let read = || vec!["GET".to_owned(), keys.secret()];
        (self == Self::Worker).then(read)
    }

    /// The commands that the service needs, with the keys of one partition.
    #[must_use]
    pub fn needs(self, keys: &Keys, partition: u8) -> Vec<Vec<String>> {
        let commands = match self {
            Self::Proxy => PROXY,
            Self::Worker => WORKER,
        };
        with_keys(commands, keys, partition)
    }
}

/// The words of each command, with the keys of one partition instead of their names.
pub(super) fn with_keys(commands: &[&str], keys: &Keys, partition: u8) -> Vec<Vec<String>> {
    let [charges, ..] = keys.quota(partition);
    let stream = Stream { model: ModelName::ANY, priority: Priority::Normal };
    let key = |word: &str| match word {
        "$quota" => charges.clone(),
        "$job" => keys.job(JobId::new(partition)),
        "$input" => keys.input(JobId::new(partition)),
        "$stream" => keys.stream(partition, stream),
        "$log" => keys.log(partition),
        "$ahead" => keys.log_ahead(partition),
        "$dead" => keys.dead(partition, stream.model),
        "$alone" => keys.alone(partition, stream.model),
        "$idem" => keys.idempotency(partition, "0"),
        "$format" => keys.format(),
        "$secret" => keys.secret(),
        "$models" => keys.models(),
        "$workers" => keys.workers(),
        word => word.to_owned(),
    };
    commands.iter().map(|command| command.split(' ').map(key).collect()).collect()
}

/// Whether the user of the connection may read the queue's secret although its service must not. A user that may read all keys does
/// not use the shipped rules, and is not reported.
pub(super) async fn reads_secret(
    connection: &mut MultiplexedConnection,
    service: Service,
    keys: &Keys,
) -> Result<bool, RedisError> {
    let Some(forbidden) = service.forbidden(keys) else { return Ok(false) };
    let elsewhere = vec!["GET".to_owned(), "tepal:doctor".to_owned()];
    let reads = [forbidden, elsewhere];
    let refused = refused(connection, &reads).await?;
    Ok(refused.len() == 1 && refused.iter().all(|command| command[1] == reads[1][1]))
}

/// The commands that the user of the connection may not run.
pub(super) async fn refused<'a>(
    connection: &mut MultiplexedConnection,
    needs: &'a [Vec<String>],
) -> Result<Vec<&'a [String]>, RedisError> {
    let script = Script::new(include_str!("rights.lua"));
    let mut call = script.prepare_invoke();
    for command in needs {
        call.arg(command.len()).arg(command);
    }
    let refused: Vec<usize> = call.invoke_async(connection).await?;
    Ok(refused
        .into_iter()
        .filter_map(|number| needs.get(number.checked_sub(1)?))
        .map(Vec::as_slice)
        .collect())
}

/// Whether the user of the connection may run all commands that the service needs, and no more than it should.
pub(super) async fn rights(
    connection: &mut MultiplexedConnection,
    keys: &Keys,
    expected: Expected,
) -> Finding {
    const FIX: &str = "compose/users.acl contains the rule that each service needs";
    let last = expected.partitions.clamp(1, MOST_PARTITIONS) - 1;
    let mut needs = expected.service.needs(keys, 0);
    if last > 0 {
        needs.extend(expected.service.needs(keys, last as u8));
    }
    if expected.is_cluster {
        needs.extend(with_keys(CLUSTER, keys, 0));
    }
    let checked = async {
        let refused = refused(connection, &needs).await?;
        Ok::<_, RedisError>((refused, reads_secret(connection, expected.service, keys).await?))
    };
    match checked.await {
        Ok((refused, true)) if refused.is_empty() => {
            let what =
                format!("the user may read {}, from which the proxies derive their keys", keys.secret());
            Finding::wrong("rights", what, FIX)
        }
        Ok((refused, false)) if refused.is_empty() => Finding::ok(
            "rights",
            "the user may run all commands that the service needs on the keys of the queue",
        ),
        Ok((refused, _)) => {
            let commands: Vec<_> = refused.iter().map(|command| command.join(" ")).collect();
            Finding::wrong("rights", format!("the user may not run: {}", commands.join(", ")), FIX)
        }
        Err(error) if error.code() == Some("NOPERM") => {
            Finding::wrong("rights", "the user may not run scripts (EVALSHA, SCRIPT LOAD)", FIX)
        }
        Err(error) => Finding::unknown("rights", error.to_string()),
    }
}

/// Why a command failed.
pub(super) fn unable(command: &str, error: &RedisError) -> String {
    if error.code() == Some("NOPERM") {
        return format!("this user may not run {command}; run the doctor as another user");
    }
    format!("{command} failed: {error}")
}
