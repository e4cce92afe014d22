//! The Lua scripts, and one enum for the outcomes of each. A script is its own shebang line, then the shared parts,
//! then its body; the first word of its reply decides the outcome, and an unknown word is an error.

mod outcome;
mod reply;

use std::sync::LazyLock;

use redis::{Cmd, RedisError, Script, aio::MultiplexedConnection};

use crate::queue::error::StoreError;

pub use outcome::{Cancelled, Expired, Fence, Granted, Requeued, Settled, Submitted, WorkerRecord};
pub(crate) use outcome::{parse_recorded, parse_renewed, parse_workers};
pub(crate) use reply::Reply;

const LIB: &str = include_str!("lua/lib.lua");
const CLOCK: &str = include_str!("lua/clock.lua");
const FOUND: &str = include_str!("lua/found.lua");
const ACCEPT: &str = include_str!("lua/accept.lua");
const HOLD: &str = include_str!("lua/hold.lua");
const QUOTA: &str = include_str!("lua/quota.lua");
const END: &str = include_str!("lua/end.lua");
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
    SUBMIT = "submit" + LIB + CLOCK + QUOTA + ACCEPT;
    TAKE = "take" + LIB + CLOCK + QUOTA + END + GRANT;
    START = "start" + LIB + CLOCK + QUOTA + END + GRANT;
    RENEW = "renew" + LIB + HOLD;
    COMPLETE = "complete" + LIB + CLOCK + HOLD + QUOTA + END;
    RETRY = "retry" + LIB + CLOCK + HOLD;
    RELEASE = "release" + LIB + CLOCK + HOLD;
    FAIL = "fail" + LIB + CLOCK + HOLD + QUOTA + END;
    CANCEL = "cancel" + LIB + CLOCK + FOUND + QUOTA + END;
    REQUEUE = "requeue" + LIB + CLOCK + FOUND + QUOTA + ACCEPT;
    EXPIRE = "expire" + LIB + CLOCK + FOUND + QUOTA + END;
    HEARTBEAT = "heartbeat" + LIB + CLOCK;
    WORKERS = "workers" + LIB + CLOCK;
    SWEEP = "sweep" + LIB + CLOCK + FOUND;
    PRUNE = "prune" + LIB;
    UNCHARGE = "uncharge" + LIB + CLOCK + QUOTA;
    RECOUNT = "recount" + LIB + FOUND + QUOTA;
}

/// Puts the shared parts between a script's shebang line and its body.
fn assemble(source: &str, parts: &[&str]) -> String {
    let (shebang, body) = source.split_once('\n').unwrap_or((source, ""));
    format!("{shebang}\n{}{body}", parts.concat())
}

impl NamedScript {
    /// `EVALSHA` with these keys; arguments are added by the caller.
    pub(crate) fn call<K: redis::ToRedisArgs>(&self, keys: &[K]) -> Cmd {
        self.call_with_room(keys, 0, 0)
    }

    /// The same, with room for so many arguments with so many bytes together, keys included.
    pub(crate) fn call_with_room<K: redis::ToRedisArgs>(
        &self,
        keys: &[K],
        arguments: usize,
        bytes: usize,
    ) -> Cmd {
        let mut command = Cmd::with_capacity(3 + keys.len() + arguments, bytes);
        command.arg("EVALSHA").arg(self.script.get_hash()).arg(keys.len());
        for key in keys {
            command.arg(key);
        }
        command
    }

    fn unexpected(&self, reason: impl Into<String>) -> StoreError {
        StoreError::Protocol { script: self.name, reason: reason.into() }
    }
}

#[cfg(test)]
mod tests {
    use redis::Value;

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
        let outcome = Value::Array(vec![Value::BulkString(b"maybe".to_vec())]);
        let outcome = Submitted::parse_all(Value::Array(vec![outcome]), 1).unwrap().remove(0);
        let error = outcome.map_err(|error| error.to_string());
        assert_eq!(error, Err("unexpected answer of script `submit`: unknown outcome `maybe`".to_owned()));
    }
}
