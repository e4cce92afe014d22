//! Checks of servers that stand in for each other: a group with Sentinels, or a cluster.

use std::time::Duration;

use super::{rights::unable, server::setting};
use crate::{
    process::doctor::Finding,
    queue::{
        Queue,
        info::Info,
        link::{ConnectionSettings, SentinelGroup},
    },
};

/// With fewer, one that fails stops the others from agreeing on a failover.
const FEWEST_SENTINELS: u64 = 3;
/// A primary that fails is missed for longer than this.
const LONG: Duration = Duration::from_secs(15);

/// Checks what stands in for a primary that fails.
pub(super) async fn examine(queue: &Queue, settings: &ConnectionSettings) -> Vec<Finding> {
    if let Some(group) = settings.sentinel_group().await {
        return vec![sentinels(&group)];
    }
    if settings.is_cluster() { cluster(queue).await } else { Vec::new() }
}

fn sentinels(group: &SentinelGroup) -> Finding {
    const SUBJECT: &str = "Sentinels";
    let SentinelGroup { answered, sentinels, quorum, replicas, down_after } = group;
    let what = format!(
        "{answered} of the addresses answered; they know {sentinels} Sentinels and {replicas} replicas, need {quorum} to agree, \
         and wait for {} ms",
        down_after.as_millis()
    );
    if *sentinels < FEWEST_SENTINELS {
        return Finding::wrong(SUBJECT, what, "run three Sentinels or more, each on a machine of its own");
    }
    if *replicas == 0 {
        return Finding::wrong(SUBJECT, what, "connect a replica: nothing can take over from the primary");
    }
    Finding::ok(SUBJECT, what)
}

async fn cluster(queue: &Queue) -> Vec<Finding> {
    const SUBJECT: &str = "cluster";
    let mut findings = Vec::new();
    let mut connection = match queue.redis().dedicated(Duration::ZERO).await {
        Ok(connection) => connection,
        Err(error) => return vec![Finding::unknown(SUBJECT, error.to_string())],
    };
    let info = redis::cmd("CLUSTER").arg("INFO").query_async::<String>(&mut connection).await;
    match info.map(|text| Info::parse(&text)) {
        Ok(info) if info.get("cluster_state") == Some("ok") => {
            let (nodes, primaries) = (info.number("cluster_known_nodes"), info.number("cluster_size"));
            findings.push(Finding::ok(SUBJECT, format!("{nodes} nodes, of which {primaries} own slots")));
        }
        Ok(info) => {
            let state = info.get("cluster_state").unwrap_or_default();
            let what = format!("its state is {state}; {} slots work", info.number("cluster_slots_ok"));
            findings.push(Finding::wrong(
                SUBJECT,
                what,
                "run `redis-cli --cluster check` and start the missing nodes",
            ));
        }
        Err(error) => findings.push(Finding::unknown(SUBJECT, unable("CLUSTER INFO", &error))),
    }
    match setting(&mut connection, "cluster-require-full-coverage").await {
        Ok(value) if value == "yes" => findings.push(Finding::wrong(
            "coverage",
            "cluster-require-full-coverage is yes: while one primary is down, all partitions stop",
            "CONFIG SET cluster-require-full-coverage no on each node, and add it to the configuration",
        )),
        Ok(value) => {
            findings.push(Finding::ok("coverage", format!("cluster-require-full-coverage is {value}")))
        }
        Err(why) => findings.push(Finding::unknown("coverage", why)),
    }
    match setting(&mut connection, "cluster-node-timeout").await.map(|text| (text.parse(), text)) {
        Ok((Ok(ms), _)) if Duration::from_millis(ms) >= LONG => findings.push(Finding::ok(
            "failover",
            format!("cluster-node-timeout is {ms}: a failover begins only after {} s", ms / 1000),
        )),
        Ok((_, text)) => findings.push(Finding::ok("failover", format!("cluster-node-timeout is {text}"))),
        Err(why) => findings.push(Finding::unknown("failover", why)),
    }
    findings
}
