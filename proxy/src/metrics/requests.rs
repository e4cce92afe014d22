//! The metrics of requests, by method, route and status.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock},
    time::Duration,
};

use axum::http::{Method, StatusCode};
use metrics::{Counter, Histogram, counter, histogram, with_local_recorder};
use metrics_exporter_prometheus::PrometheusRecorder;

use super::names::{DURATION, REQUESTS};

/// Buckets, from 0.1 ms. They are finer around the limits of the specification: 5, 10, 20, 30 and 50 ms. The last ones are for
/// requests that wait for a job.
pub(super) const DURATION_SECONDS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0, 30.0, 60.0,
];
/// The label of requests that no route matched.
const UNMATCHED: &str = "unmatched";

/// Counts answered requests.
#[derive(Default)]
pub(super) struct Requests {
    /// Series by route, so that a lookup makes no owned key.
    series: RwLock<HashMap<String, Vec<Series>>>,
}

struct Series {
    method: &'static str,
    status: StatusCode,
    count: Counter,
    duration: Histogram,
}

impl Requests {
    /// Counts an answered request.
    pub(super) fn count(
        &self,
        recorder: &PrometheusRecorder,
        (method, route): (&Method, Option<&str>),
        status: StatusCode,
        took: Duration,
    ) {
        let (method, route) = (method_label(method), route.unwrap_or(UNMATCHED));
        let known = self.series.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(series) = known.get(route).and_then(|all| find(all, method, status)) {
            return series.record(took);
        }
        drop(known);
        let mut known = self.series.write().unwrap_or_else(PoisonError::into_inner);
        let all = known.entry(route.to_owned()).or_default();
        if find(all, method, status).is_none() {
            all.push(Series::new(recorder, method, route, status));
        }
        if let Some(series) = find(all, method, status) {
            series.record(took);
        }
    }
}

impl Series {
    fn new(recorder: &PrometheusRecorder, method: &'static str, route: &str, status: StatusCode) -> Self {
        let route = route.to_owned();
        with_local_recorder(recorder, || Self {
            method,
            status,
            count: counter!(
                REQUESTS, "method" => method, "route" => route.clone(), "status" => status.as_str().to_owned()
            ),
            duration: histogram!(DURATION, "method" => method, "route" => route),
        })
    }

    fn record(&self, took: Duration) {
        self.count.increment(1);
        self.duration.record(took);
    }
}

fn find<'a>(all: &'a [Series], method: &str, status: StatusCode) -> Option<&'a Series> {
    all.iter().find(|series| series.status == status && series.method == method)
}

/// Clients can send any word as a method; labels come from a closed set.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
