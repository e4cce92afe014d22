//! A power loss: only the part of the append-only file that the disk had confirmed remains. `strace` records how much that
//! is.

use std::collections::HashMap;
use std::fs::{File, read_to_string};
use std::path::Path;

use tepal_tests::process::{Proxy, Worker};
use tepal_tests::redis::RedisServer;
use tepal_tests::wait::eventually;

use crate::SOON;
use crate::acknowledged::Clients;

#[tokio::test]
async fn no_acknowledged_job_is_lost_to_a_power_loss() {
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("trace");
    let strace = ["strace", "-D", "-f", "-y", "-s", "0", "-e", "trace=write,fdatasync", "-o"];
    let command = [&strace[..], &[trace.to_str().unwrap()]].concat();
    let redis = RedisServer::shipped().through(&command).start().await;
    let proxy = Proxy::start(&redis.proxy_url(), &[]).await;
    let worker = Worker::start(&redis.worker_url(), &[]).await;
    let client = proxy.client();

    let clients = Clients::start(&client, 4);
    clients.accepted(50).await;
    redis.kill9();
    let acknowledged = clients.stop().await;
    let killed = async || read_to_string(&trace).unwrap().contains("killed by SIGKILL");
    eventually(SOON, "the end of the trace", killed).await;
    let file = File::options().write(true).open(redis.aof_file()).unwrap();
    let synced = synced(&read_to_string(&trace).unwrap(), &redis.aof_file());
    assert!(synced > 0 && synced <= file.metadata().unwrap().len(), "{synced} bytes");
    file.set_len(synced).unwrap();
    redis.restart().await;

    assert!(acknowledged.accepted.len() >= 50 && !acknowledged.ended.is_empty());
    acknowledged.assert_kept(&client).await;
    assert!(worker.is_running());
}

/// The file's size when the last fdatasync that returned was called.
fn synced(trace: &str, file: &Path) -> u64 {
    let path = format!("<{}>", file.display());
    let (mut written, mut synced) = (0, 0);
    // By thread: whether its call that has not returned yet is a write.
    let mut unfinished = HashMap::new();
    for line in trace.lines() {
        let (thread, call) = line.split_once(char::is_whitespace).unwrap();
        let call = call.trim_start();
        let is_write = if call.contains(&path) {
            let is_write = call.starts_with("write(");
            if call.ends_with("<unfinished ...>") {
                unfinished.insert(thread, is_write);
                continue;
            }
            is_write
        } else if call.starts_with("<... ") {
            let Some(is_write) = unfinished.remove(thread) else { continue };
            is_write
        } else {
            continue;
        };
        let returned = call.rsplit_once(" = ").and_then(|(_, result)| result.trim().parse::<u64>().ok());
        match returned {
            Some(bytes) if is_write => written += bytes,
            Some(0) => synced = written,
            _ => {}
        }
    }
    synced
}
