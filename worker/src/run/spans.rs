//! The spans of a job in the worker, recorded when an attempt has its outcome: `wait`, then `attempt` with `model call` and
//! `settle`. The `batch` of the call is a separate span in the trace of its first job, with links to all its jobs.

use std::time::SystemTime;

use tepal_shared::{
    job::{Attempt, ModelName},
    process::trace::{self, KeyValue, PastSpan, SpanContext, SpanKind},
};

use crate::{backend::BackendError, run::batch::MicroBatch};

/// A finished model call.
#[derive(Clone, Debug)]
pub struct Call {
    span: (SystemTime, SystemTime),
    batch: Option<SpanContext>,
    error: Option<&'static str>,
}

impl Call {
    /// The call for `batch` that started then and has just ended; `None` without traces.
    #[must_use]
    pub fn ended(
        batch: &MicroBatch,
        (model, backend): (ModelName, &'static str),
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
            KeyValue::new("tepal.model", model.as_str()),
            KeyValue::new("tepal.backend", backend),
            KeyValue::new("tepal.batch.jobs", batch.items.len() as i64),
            KeyValue::new("tepal.batch.rows", batch.rows() as i64),
        ];
        let recorded = PastSpan {
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

/// An attempt that has just got its outcome. If it was lost meanwhile, its start is unknown; then the span starts with its
/// call.
pub fn attempt(
    attempt: &Attempt,
    granted_at: Option<SystemTime>,
    call: Option<&Call>,
    outcome: &'static str,
) {
    let Some(submit) = trace::recorded(attempt.traceparent.as_deref()) else { return };
    let now = SystemTime::now();
    let granted = granted_at.or(call.map(|call| call.span.0)).unwrap_or(now);
    // Only before the first attempt did the job just wait.
    if attempt.claim.token == 1 {
        part("wait", SpanKind::Consumer, &submit, (granted - attempt.age, granted)).record();
    }
    let whole = PastSpan {
        attributes: vec![
            KeyValue::new("tepal.job_id", attempt.claim.job_id.to_string()),
            KeyValue::new("tepal.model", attempt.claim.stream.model.as_str()),
            KeyValue::new("tepal.attempt", i64::try_from(attempt.claim.token).unwrap_or(i64::MAX)),
            KeyValue::new("tepal.outcome", outcome),
        ],
        error: call.and_then(|call| call.error).map(Into::into),
        ..part("attempt", SpanKind::Internal, &submit, (granted, now))
    };
    let Some(whole) = whole.record() else { return };
    let Some(call) = call else { return };
    let model_call = PastSpan {
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
) -> PastSpan<'a> {
    PastSpan { name, kind, parent, span, attributes: Vec::new(), links: Vec::new(), error: None }
}
