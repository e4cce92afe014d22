//! What the fuzz target of replies calls.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is a finding")]

use std::fmt::Debug;

use redis::Value;

use crate::{
    job::Stream,
    queue::{
        error::StoreError,
        heartbeat::parse_workers,
        intake::{
            end::{Cancelled, Expired},
            requeue::Requeued,
            submitted::Submitted,
        },
        scripts::{FAIL, TAKE},
        views::fuzzing as views,
        work::{
            heartbeat::parse_recorded,
            outcome::{Granted, Settled, parse_renewed},
        },
    },
};

/// A reply of Redis to each script and to each read.
pub fn script_reply(bytes: &[u8]) {
    let reply = || value(&mut &bytes[..], 0);
    named("submit", Submitted::parse_all(reply(), 1).and_then(|mut outcomes| outcomes.remove(0)));
    named("take", Granted::parse(&TAKE, reply(), &streams()));
    named("fail", Settled::parse(&FAIL, reply()));
    named("complete", Settled::parse_completed(reply(), 2));
    named("renew", parse_renewed(reply()));
    named("cancel", Cancelled::parse(reply()));
    named("requeue", Requeued::parse(reply()));
    named("expire", Expired::parse(reply()));
    named("heartbeat", parse_recorded(reply()));
    named("workers", parse_workers(reply()));
    for outcome in views::read_all(reply) {
        named("read", outcome);
    }
}

/// The streams of the call.
fn streams() -> [Stream; 3] {
    Stream::all_of("iris".parse().unwrap())
}

/// An error names the script, so that an operator knows where to look.
fn named<T: Debug>(script: &str, outcome: Result<T, StoreError>) {
    match outcome {
        Ok(_) => {}
        Err(StoreError::Protocol { script: name, .. } | StoreError::Unreadable { script: name, .. }) => {
            assert_eq!(name, script)
        }
        Err(other) => panic!("{other:?}"),
    }
}

/// A tree made of bytes: one for the kind, then what the kind needs.
fn value(bytes: &mut &[u8], depth: u8) -> Value {
    let kind = byte(bytes);
    match kind % 8 {
        0 => Value::Nil,
        1 => Value::Int(i64::from(byte(bytes))),
        2 => Value::Int(i64::from_be_bytes(std::array::from_fn(|_| byte(bytes)))),
        3 => Value::SimpleString(String::from_utf8_lossy(text(bytes)).into_owned()),
        4 | 5 => Value::BulkString(text(bytes).to_vec()),
        _ if depth >= 6 => Value::Okay,
        6 => Value::Array((0..byte(bytes) % 32).map(|_| value(bytes, depth + 1)).collect()),
        _ => Value::Map(vec![(value(bytes, depth + 1), value(bytes, depth + 1))]),
    }
}

fn byte(bytes: &mut &[u8]) -> u8 {
    bytes.split_off_first().copied().unwrap_or(0)
}

fn text<'a>(bytes: &mut &'a [u8]) -> &'a [u8] {
    let length = usize::from(byte(bytes)).min(bytes.len());
    bytes.split_off(..length).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_seeds_of_replies_are_replies() {
        let seed = |name: &str| {
            let path =
                Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/seeds/script_reply").join(name);
            value(&mut std::fs::read(path).unwrap().as_slice(), 0)
        };
        assert_eq!(
            Submitted::parse_all(seed("accepted"), 1).unwrap()[0].clone().unwrap(),
            Submitted::Accepted
        );
        let granted = Granted::parse(&TAKE, seed("granted"), &streams()).unwrap();
        assert_eq!((granted.deliveries.len(), granted.reclaimed), (1, vec![streams()[0].model]));
    }
}
