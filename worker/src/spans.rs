//! A job's way through the worker as spans, recorded when an attempt has its outcome: `wait`, then `attempt` with
//! `model call` and `settle`. The `batch` that the call was made for is a span of its own, linked with all its jobs; it
//! stands in the trace of the first of them.

use std::time::SystemTime;

use tepal_shared::{
    job::Attempt,
    trace::{self, KeyValue, Part, SpanContext, SpanKind},
};

use crate::{backend::BackendError, batch::MicroBatch};

/// A model call that was made.
#[derive(Clone, Debug)]
pub struct Call {
    span: (SystemTime, SystemTime),
    batch: Option<SpanContext>,
    error: Option<&'static str>,
}

impl Call {
    /// The call for `batch` that began then and has just ended; `None` when nobody records it.
    #[must_use]
    pub fn ended(
        batch: &MicroBatch,
        backend: &'static str,
        began: SystemTime,
        error: Option<&BackendError>,
    ) -> Option<Self> {
        if !trace::is_on() {
            return None;
        }
        let jobs = batch.items.iter().filter_map(|item| trace::recorded(item.attempt.traceparent.as_deref()));
        let jobs: Vec<_> = jobs.collect();
        let span = (began, SystemTime::now());
        let error = error.map(|error| error.code);
        let attributes = vec![
            KeyValue::new("tepal.backend", backend),
            KeyValue::new("tepal.batch.jobs", batch.items.len() as i64),
            KeyValue::new("tepal.batch.rows", batch.rows() as i64),
        ];
        let recorded = Part {
            name: "batch",
            kind: SpanKind::Client,
            parent: jobs.first()?,
            span,
            attributes,
            links: jobs.clone(),
            error: error.map(Into::into),
        };
        Some(Self { span, batch: recorded.record(), error })
    }
}

/// An attempt that has its outcome just now. When it was granted is not known of one that was lost meanwhile; then its
/// call is the first that is known of it.
pub fn attempt(
    attempt: &Attempt,
    granted_at: Option<SystemTime>,
    call: Option<&Call>,
    outcome: &'static str,
) {
    let Some(submit) = trace::recorded(attempt.traceparent.as_deref()) else { return };
    let now = SystemTime::now();
    let granted = granted_at.or(call.map(|call| call.span.0)).unwrap_or(now);
    // Later attempts follow earlier ones; only before the first did the job just wait.
    if attempt.token == 1 {
        part("wait", SpanKind::Consumer, &submit, (granted - attempt.age, granted)).record();
    }
    let whole = Part {
        attributes: vec![
            KeyValue::new("tepal.job_id", attempt.job_id.to_string()),
            KeyValue::new("tepal.attempt", i64::try_from(attempt.token).unwrap_or(i64::MAX)),
            KeyValue::new("tepal.outcome", outcome),
        ],
        error: call.and_then(|call| call.error).map(Into::into),
        ..part("attempt", SpanKind::Internal, &submit, (granted, now))
    };
    let Some(whole) = whole.record() else { return };
    let Some(call) = call else { return };
    let model_call = Part {
        links: call.batch.iter().cloned().collect(),
        error: call.error.map(Into::into),
        ..part("model call", SpanKind::Client, &whole, call.span)
    };
    model_call.record();
    part("settle", SpanKind::Client, &whole, (call.span.1, now)).record();
}

fn part<'a>(
    name: &'static str,
    kind: SpanKind,
    parent: &'a SpanContext,
    span: (SystemTime, SystemTime),
) -> Part<'a> {
    Part { name, kind, parent, span, attributes: Vec::new(), links: Vec::new(), error: None }
}
