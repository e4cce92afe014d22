//! Dashboards, alerts and the guide against what a real Prometheus reads from real services.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::Value;
use tepal_tests::http::Answer;
use tepal_tests::wait::eventually;

use crate::alerts::alerts;
use crate::dashboards::{self, Query};
use crate::guide;
use crate::prometheus::Prometheus;
use crate::promql::selectors;
use crate::stack::Stack;

const SOON: Duration = Duration::from_secs(60);

/// Waits until every query has a sample that is a number.
async fn all_have_data(prometheus: &Prometheus, queries: Vec<Query>) {
    let mut missing = queries;
    eventually(SOON, "data for every query", async || {
        let mut still = Vec::new();
        for query in missing.drain(..) {
            let samples = prometheus.query(&query.expr).await;
            let samples = samples.unwrap_or_else(|error| panic!("{}: {error}", query.place));
            if !samples.iter().any(is_number) {
                still.push(query);
            }
        }
        missing = still;
        let places =
            || missing.iter().map(|query| format!("{}: {}", query.place, query.expr)).collect::<Vec<_>>();
        if missing.is_empty() { Ok(()) } else { Err(places().join("\n")) }
    })
    .await;
}

fn is_number(sample: &Value) -> bool {
    sample["value"][1].as_str().and_then(|text| text.parse::<f64>().ok()).is_some_and(|value| !value.is_nan())
}

#[tokio::test]
async fn every_panel_and_every_alert_has_data() {
    let stack = Stack::start().await;
    let prometheus = Prometheus::start(&stack.targets()).await;
    eventually(SOON, "every target to be read", async || {
        let targets = prometheus.targets().await;
        let is_up = |target: &String| target == "\"up\" \"\"";
        if targets.len() == 4 && targets.iter().all(is_up) { Ok(()) } else { Err(targets.join("; ")) }
    })
    .await;

    all_have_data(&prometheus, dashboards::panels()).await;

    let mut conditions = dashboards::annotations();
    conditions.extend(alerts().into_iter().map(|alert| Query { place: alert.name, expr: alert.expr }));
    let mut read = Vec::new();
    for Query { place, expr } in conditions {
        let fine = prometheus.query(&expr).await;
        assert!(fine.is_ok(), "{place}: {fine:?}");
        let series = selectors(&expr);
        assert!(!series.is_empty(), "{place} looks at nothing of ours: {expr}");
        read.extend(series.into_iter().map(|expr| Query { place: place.clone(), expr }));
    }
    all_have_data(&prometheus, read).await;

    for (variable, label) in dashboards::variables() {
        let samples = prometheus.query(&variable.expr).await.unwrap();
        let has_label = |sample: &Value| sample["metric"][&label].is_string();
        assert!(!samples.is_empty() && samples.iter().all(has_label), "{variable:?} {label}: {samples:?}");
    }
    let firing = prometheus.query(r#"ALERTS{alertstate="firing"}"#).await.unwrap();
    assert!(firing.is_empty(), "a healthy stack raises alerts: {firing:?}");
}

/// Each metric's type on a page of metrics.
fn types(page: &Answer) -> BTreeMap<String, String> {
    let text = page.text();
    let words = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    words.map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect()
}

/// Each metric's type in the guide.
fn documented(program: &str) -> BTreeMap<String, String> {
    let rows = guide::rows("Metrics");
    let of_program = rows.iter().filter(|row| row[2] == "both" || row[2] == program);
    of_program.map(|row| (row[0].clone(), row[1].clone())).collect()
}

#[tokio::test]
async fn the_guide_has_every_metric_with_its_type_and_labels() {
    let stack = Stack::start().await;
    let page = async |program: &str| match program {
        "proxy" => stack.proxies[0].client().get("/metrics").await,
        _ => stack.workers[0].metrics().await,
    };
    for program in ["proxy", "worker"] {
        let expected = documented(program);
        eventually(SOON, "the metrics of the guide and of the program to be the same", async || {
            let found = types(&page(program).await);
            let (only_documented, only_found) = (without(&expected, &found), without(&found, &expected));
            let same = only_documented.is_empty() && only_found.is_empty();
            let text =
                || format!("{program}: only in the guide {only_documented:?}, not in it {only_found:?}");
            if same { Ok(()) } else { Err(text()) }
        })
        .await;
        let page = page(program).await.text();
        for row in guide::rows("Metrics").iter().filter(|row| row[2] == "both" || row[2] == program) {
            assert!(page.contains(&format!("# HELP {} ", row[0])), "{} has no help text", row[0]);
            assert_eq!(labels(&page, &row[0]), labels_of(&row[3]), "{} of the {program}", row[0]);
        }
    }
}

fn without(a: &BTreeMap<String, String>, b: &BTreeMap<String, String>) -> Vec<String> {
    let differing = a.iter().filter(|(name, kind)| b.get(*name) != Some(kind));
    differing.map(|(name, kind)| format!("{name} {kind}")).collect()
}

/// The labels of a metric's samples, the buckets' `le` left out.
fn labels(page: &str, name: &str) -> BTreeSet<String> {
    let samples = page.lines().filter_map(|line| line.strip_prefix(name)).filter_map(|rest| {
        ["{", "_bucket{", "_sum{", "_count{"].iter().find_map(|start| rest.strip_prefix(start))
    });
    let names = samples.flat_map(|rest| {
        let inside = rest.rsplit_once('}').map_or("", |(inside, _)| inside);
        let parts = inside.split("\",").filter_map(|label| label.split_once('='));
        parts.map(|(label, _)| label.to_owned()).collect::<Vec<_>>()
    });
    names.filter(|label| label != "le").collect()
}

fn labels_of(cell: &str) -> BTreeSet<String> {
    cell.split(", ")
        .map(|label| label.trim_matches('`').to_owned())
        .filter(|label| !label.is_empty())
        .collect()
}

#[tokio::test]
async fn all_proxies_say_the_same_of_what_they_share() {
    let shared = [
        "tepal_queue_length",
        "tepal_jobs_in_flight",
        "tepal_jobs_waiting_retry",
        "tepal_dead_letters",
        "tepal_workers_live",
        "tepal_redis_up",
        "tepal_redis_max_memory_bytes",
        "tepal_redis_keys",
        "tepal_redis_aof_ok",
    ];
    let stack = Stack::start().await;
    let values = async |proxy: usize| {
        let page = stack.proxies[proxy].client().get("/metrics").await;
        shared.map(|name| (name, page.metric(name)))
    };
    eventually(SOON, "jobs and workers to be seen", async || {
        let seen = values(0).await;
        let keys_and_workers = seen[7].1 > 10.0 && seen[4].1 == 2.0;
        if keys_and_workers { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
    stack.rest();
    eventually(SOON, "both proxies to say the same", async || {
        let (first, second) = (values(0).await, values(1).await);
        let is_quiet = first[0].1 + first[1].1 == 0.0;
        if first == second && is_quiet { Ok(()) } else { Err(format!("{first:?} {second:?}")) }
    })
    .await;
}

#[tokio::test]
async fn scrapes_do_not_ask_redis() {
    let stack = Stack::start().await;
    // Only the probes of the two proxies call INFO, each once a second, and this.
    let infos = || stack.redis.calls("info") as f64;
    let (before, started) = (infos(), Instant::now());
    let client = stack.proxies[0].client();
    for _ in 0..300 {
        assert_eq!(client.get("/metrics").await.status, 200);
    }
    let calls = infos() - before;
    let most = 2.0 * started.elapsed().as_secs_f64() + 4.0;
    assert!(calls <= most, "{calls} calls of INFO during 300 scrapes in {:?}", started.elapsed());
}
