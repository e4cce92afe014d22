//! The Lua scripts. A script is its own shebang line, then the shared parts that it needs, then its body. The first word of its
//! reply names the outcome; an unknown word is an error.

pub(crate) mod argument;
pub(crate) mod reply;

use std::sync::LazyLock;

use redis::{Cmd, RedisError, Script, aio::MultiplexedConnection};

use crate::queue::error::StoreError;

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
    PUBLISH = "publish" + LIB + CLOCK;
    WORKERS = "workers" + LIB + CLOCK;
    SWEEP = "sweep" + LIB + CLOCK + FOUND;
    PRUNE = "prune" + LIB;
    UNCHARGE = "uncharge" + LIB + CLOCK + QUOTA;
    RECOUNT = "recount" + LIB + FOUND + QUOTA;
}

/// Number of values of a claimed job in the reply of `take` and `start`.
pub(crate) const VALUES_PER_JOB: usize = {
    let (mut count, mut at) = (0, 0);
    while at < GRANT.len() {
        if is_at(at, VALUE) {
            count += 1;
        }
        at += 1;
    }
    count
};

/// How a line of `grant.lua` begins that adds a value of a claimed job to the reply.
const VALUE: &str = "jobs[at + ";

/// The place of a value among those of a claimed job, counted from 0. Only `grant.lua` knows the order, in lines such as
/// `jobs[at + 3] = attempt`. A value that the script does not return does not compile.
pub(crate) const fn granted(variable: &str) -> usize {
    let mut at = 0;
    while !(is_at(at, VALUE) && is_value(at, variable)) {
        at += 1;
        assert!(at < GRANT.len(), "`grant.lua` returns no such value");
    }
    number(at + VALUE.len()).0 - 1
}

/// Whether the line that begins there adds this variable.
const fn is_value(at: usize, variable: &str) -> bool {
    let (_, end) = number(at + VALUE.len());
    is_at(end, "] = ") && is_at(end + 4, variable) && is_at(end + 4 + variable.len(), "\n")
}

/// The number in `grant.lua` that begins there, and where it ends.
const fn number(mut at: usize) -> (usize, usize) {
    let mut number = 0;
    while GRANT.as_bytes()[at].is_ascii_digit() {
        number = 10 * number + (GRANT.as_bytes()[at] - b'0') as usize;
        at += 1;
    }
    (number, at)
}

/// Whether `grant.lua` contains this text there.
const fn is_at(at: usize, text: &str) -> bool {
    let mut i = 0;
    while i < text.len() && at + i < GRANT.len() && GRANT.as_bytes()[at + i] == text.as_bytes()[i] {
        i += 1;
    }
    i == text.len()
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

    pub(crate) fn unexpected(&self, reason: impl Into<String>) -> StoreError {
        StoreError::Protocol { script: self.name, reason: reason.into() }
    }
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
}
