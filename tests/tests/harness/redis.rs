//! Redis servers, and dumps of them.

use std::fs::OpenOptions;

use redis::AsyncCommands;
use tepal_tests::history::{Final, JobDump, StreamDump};
use tepal_tests::redis::{Fsync, RedisServer};
use tepal_tests::wait::eventually;
use tokio::net::TcpStream;

use crate::{SOON, panic_text};

#[tokio::test]
async fn redis_starts_empty_and_answers() {
    let server = RedisServer::start().await;

    assert_eq!(server.cli(&["SET", "a", "1"]), "OK");
    assert_eq!(server.cli(&["MGET", "a", "b"]), "1\n(nil)");
    assert!(server.try_cli(&["INCRBY", "a", "x"]).is_err());
    assert_eq!(server.connection().await.get::<_, u64>("a").await.unwrap(), 1);
}

#[tokio::test]
async fn many_redis_servers_start_side_by_side() {
    let starts = (0..8).map(|_| tokio::spawn(RedisServer::start()));
    let mut servers = Vec::new();
    for start in starts.collect::<Vec<_>>() {
        servers.push(start.await.unwrap());
    }

    for (index, server) in servers.iter().enumerate() {
        server.cli(&["SET", "index", &index.to_string()]);
    }
    for (index, server) in servers.iter().enumerate() {
        assert_eq!(server.cli(&["GET", "index"]), index.to_string());
    }
}

#[tokio::test]
async fn redis_with_aof_keeps_its_data_over_kill_and_restart() {
    let server = RedisServer::options().aof(Fsync::Always).start().await;
    let (port, pid) = (server.port(), server.pid());
    server.cli(&["SET", "a", "kept"]);

    server.kill9();
    assert!(server.try_cli(&["PING"]).is_err());
    server.restart().await;

    assert_eq!(server.cli(&["GET", "a"]), "kept");
    assert_eq!(server.port(), port);
    assert_ne!(server.pid(), pid);
}

#[tokio::test]
async fn redis_without_aof_forgets() {
    let server = RedisServer::start().await;
    server.cli(&["SET", "a", "lost"]);

    server.restart().await;

    assert_eq!(server.cli(&["GET", "a"]), "(nil)");
}

#[tokio::test]
async fn a_restarted_redis_is_ready_once_it_has_loaded() {
    let slow_load = "key-load-delay 200\nloading-process-events-interval-bytes 1024";
    let server = RedisServer::options().aof(Fsync::No).config(slow_load).start().await;
    server.cli(&["DEBUG", "POPULATE", "3000"]);
    server.cli(&["BGREWRITEAOF"]);
    let rewritten = async || server.cli(&["INFO", "persistence"]).contains("aof_rewrite_in_progress:0");
    eventually(SOON, "the rewritten AOF", rewritten).await;

    server.relaunch().await;
    let loading = async || server.try_cli(&["PING"]).is_err_and(|error| error.code() == Some("LOADING"));
    eventually(SOON, "LOADING", loading).await;
    server.wait_ready().await;

    assert_eq!(server.cli(&["DBSIZE"]), "3000");
}

#[tokio::test]
async fn the_aof_can_be_truncated() {
    let server = RedisServer::options().aof(Fsync::Always).start().await;
    server.cli(&["SET", "a", "1"]);
    server.cli(&["SET", "b", "2"]);
    server.kill9();

    let file = OpenOptions::new().write(true).open(server.aof_file()).unwrap();
    file.set_len(file.metadata().unwrap().len() - 3).unwrap();
    server.restart().await;

    assert_eq!(server.cli(&["MGET", "a", "b"]), "1\n(nil)");
}

#[tokio::test]
async fn redis_can_have_a_password_or_users() {
    let server = RedisServer::options().password("secret").start().await;
    assert_eq!(server.cli(&["PING"]), "PONG");
    let mut nobody =
        redis::Client::open(format!("redis://{}", server.addr())).unwrap().get_connection().unwrap();
    assert_eq!(redis::cmd("PING").query::<String>(&mut nobody).unwrap_err().code(), Some("NOAUTH"));

    let rules = "user default off\nuser tester on >pass ~* &* +@all -flushall\n";
    let server = RedisServer::options().acl_file(rules, "tester", "pass").start().await;
    assert_eq!(server.cli(&["ACL", "WHOAMI"]), "tester");
    assert_eq!(server.try_cli(&["FLUSHALL"]).unwrap_err().code(), Some("NOPERM"));
}

#[tokio::test]
async fn a_missing_redis_says_what_to_install() {
    let text = panic_text(async {
        RedisServer::options().with_binary("/nowhere/redis-server").start().await;
    });

    assert!(text.await.contains("install it with `apt-get install redis-server`"));
}

#[tokio::test]
async fn a_redis_that_dies_at_once_shows_its_log() {
    let text = panic_text(async {
        RedisServer::options().config("maxmemory-policy nonsense").start().await;
    });

    assert!(text.await.contains("did not become ready: it ended"));
}

#[tokio::test]
async fn a_dropped_redis_is_gone() {
    let server = RedisServer::start().await;
    let (addr, dir) = (server.addr(), server.dir().to_owned());

    drop(server);

    assert!(TcpStream::connect(addr).await.is_err());
    assert!(!dir.exists());
}

#[tokio::test]
async fn a_dump_holds_jobs_streams_and_keys() {
    let server = RedisServer::start().await;
    for command in [
        "HSET {q:0}:job:a status pending attempt 1",
        "HSET {q:1}:job:b status completed",
        "PEXPIRE {q:1}:job:b 100000",
        "XADD {q:0}:stream:high * id a",
        "XGROUP CREATE {q:0}:stream:high workers 0",
        "XREADGROUP GROUP workers c STREAMS {q:0}:stream:high >",
        "XADD {q:0}:stream:high * id c",
        "XADD {q:0}:log * id a",
        "SET {q:0}:idem:1 a",
        "SET {q:1}:input:b [1]",
        "SET {other:0}:job:x y",
    ] {
        server.cli(&command.split(' ').collect::<Vec<_>>());
    }

    let dump = Final::read(&mut server.connection().await, "q").await.unwrap();

    assert_eq!(dump.jobs.keys().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!((dump.jobs["a"].status(), dump.jobs["a"].number("attempt")), ("pending", 1));
    assert_eq!(dump.jobs["a"].ttl_ms, None);
    assert!(matches!(dump.jobs["b"], JobDump { ttl_ms: Some(1..=100_000), .. }));
    assert_eq!(dump.inputs, [("b".to_owned(), "[1]".to_owned())].into());
    assert_eq!(dump.streams, [("{q:0}:stream:high".to_owned(), StreamDump { length: 2, pending: 1 })].into());
    assert_eq!(dump.idempotency_keys, 1);
}
