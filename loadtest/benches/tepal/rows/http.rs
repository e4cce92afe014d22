//! `POST /predict` against an axum server that parses the JSON and answers a constant.

use std::time::Duration;

use super::{Measured, Row, Target, say};
use crate::series::Series;
use crate::tools::wrk;
use crate::{Scale, parts, queue::Queue};

const MANY: usize = 64;
const WARM_UP: Duration = Duration::from_secs(1);

pub(super) async fn measure(measured: &mut Measured, scale: Scale) {
    let redis = parts::redis().await;
    let queue = Queue::of(&redis).await;
    let (axum, proxy) = (parts::bare_axum(&redis).await, parts::proxy(&redis).await);
    for url in [&axum.url, &proxy.url] {
        wrk(url, MANY, WARM_UP).await;
    }
    queue.clear().await;
    let [mut axum_rate, mut proxy_rate, mut axum_p50, mut proxy_p50] = [const { Series::new() }; 4];
    let [mut axum_p99, mut proxy_p99] = [const { Series::new() }; 2];
    for round in 0..scale.rounds {
        let limit = wrk(&axum.url, MANY, scale.length).await;
        let tepal = wrk(&proxy.url, MANY, scale.length).await;
        queue.clear().await;
        say(round, "bare axum, 64 connections", limit.per_second, "/s");
        say(round, "POST /predict, 64 connections", tepal.per_second, "/s");
        axum_rate.push(limit.per_second);
        proxy_rate.push(tepal.per_second);
        axum_p99.push(limit.p99_ms);
        proxy_p99.push(tepal.p99_ms);

        let limit = wrk(&axum.url, 1, scale.length).await;
        let tepal = wrk(&proxy.url, 1, scale.length).await;
        queue.clear().await;
        let [limit, tepal] = [limit, tepal].map(|measured| measured.p50_ms * 1_000.0);
        say(round, "bare axum, one connection, p50", limit, "us");
        say(round, "POST /predict, one connection, p50", tepal, "us");
        axum_p50.push(limit);
        proxy_p50.push(tepal);
    }
    measured.details.push(super::Detail {
        title: "p99 of the answers on 64 connections, as fast as the server goes",
        text: String::new(),
        head: vec!["server", "p99, ms"],
        lines: vec![
            vec!["bare axum".to_owned(), axum_p99.to_string()],
            vec!["Tepal".to_owned(), proxy_p99.to_string()],
        ],
    });
    let what = "`POST /predict`, 64 connections, over bare axum";
    measured.rows.push(Row::ratio(what, axum_rate, proxy_rate, "/s", Target::AtLeast(0.45)));
    let what = "`POST /predict`, one connection, p50, over bare axum's";
    measured.rows.push(Row::ratio(what, axum_p50, proxy_p50, "us", Target::AtMost(5.0)));
}
