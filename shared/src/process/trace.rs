//! Traces: OpenTelemetry spans over OTLP/gRPC, off unless an address is given.
//!
//! The trace of a job begins in the proxy, or in the client's `traceparent` (W3C Trace Context), which is stored with the job.
//! When traces are off, this module passes the header on and costs a comparison.

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::OnceLock,
    time::{Duration, SystemTime},
};

use opentelemetry::{
    Context,
    propagation::TextMapPropagator as _,
    trace::{Link, Span as _, SpanBuilder, Status, TraceContextExt as _, TracerProvider as _},
};
pub use opentelemetry::{
    KeyValue,
    trace::{SpanContext, SpanKind},
};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{Sampler, SdkTracer, SdkTracerProvider, Span as SdkSpan},
};
use tracing::warn;

use crate::{job::JobId, process::telemetry};

const HEADER: &str = "traceparent";
/// Time limit for sending the last spans when the service stops.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);
/// Time limit for sending spans.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// Settings of traces.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceSettings {
    /// Address of an OTLP/gRPC receiver.
    pub endpoint: String,
    /// Share of the traces begun here that are recorded, 0 to 1. The client's decision wins.
    pub ratio: f64,
}

/// Sends spans. Call [`Exporter::finish`] at the end.
#[derive(Debug)]
#[must_use = "spans that are still waiting are lost unless `finish` is called"]
pub struct Exporter(Option<SdkTracerProvider>);

/// Starts to send spans of the service `component`, if traces are on. Must run inside of tokio.
///
/// # Errors
/// When the address is malformed. If the receiver is unreachable, spans are lost and the log reports it.
pub fn start(component: &str, settings: Option<&TraceSettings>) -> Result<Exporter, TraceError> {
    let Some(settings) = settings else { return Ok(Exporter(None)) };
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(&settings.endpoint)
        .with_timeout(EXPORT_TIMEOUT)
        .build()
        .map_err(TraceError)?;
    let resource = Resource::builder()
        .with_service_name(format!("tepal-{component}"))
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(settings.ratio))))
        .with_resource(resource)
        .build();
    // A second start in one process keeps the first tracer.
    let _ = TRACER.set(provider.tracer("tepal"));
    Ok(Exporter(Some(provider)))
}

/// Spans cannot be sent to that address.
#[derive(Debug, thiserror::Error)]
#[error("traces cannot be sent; OTEL_EXPORTER_OTLP_ENDPOINT must have the form http://host:4317")]
pub struct TraceError(#[source] opentelemetry_otlp::ExporterBuildError);

impl Exporter {
    /// Sends the spans that still wait.
    pub async fn finish(self) {
        let Some(provider) = self.0 else { return };
        let flushed = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(FLUSH_TIMEOUT));
        if let Ok(Err(error)) = flushed.await {
            warn!(action = "spans_lost", error = telemetry::chain(&error));
        }
    }
}

/// Whether traces are on.
#[must_use]
pub fn is_on() -> bool {
    TRACER.get().is_some()
}

/// The span of a request that submits a job. It ends when it is dropped.
#[derive(Debug)]
pub struct Submit {
    span: Option<SdkSpan>,
    traceparent: Option<String>,
}

impl Submit {
    /// Begins the span, in the client's trace if the client sent a `traceparent`.
    #[must_use]
    pub fn begin(client: Option<String>) -> Self {
        let Some(tracer) = TRACER.get() else { return Self { span: None, traceparent: client } };
        let parent = context_of(client.as_deref());
        let span = SpanBuilder::from_name("submit")
            .with_kind(SpanKind::Producer)
            .start_with_context(tracer, &parent);
        let traceparent = Some(header_of(span.span_context()));
        Self { span: Some(span), traceparent }
    }

    /// The `traceparent` that is stored with the job. Later spans are children of this one.
    #[must_use]
    pub fn traceparent(&self) -> Option<&str> {
        self.traceparent.as_deref()
    }

    /// Records the outcome of the submission.
    pub fn note(&mut self, job_id: Option<JobId>, outcome: &'static str) {
        let Some(span) = &mut self.span else { return };
        span.set_attribute(KeyValue::new("tepal.outcome", outcome));
        if let Some(id) = job_id {
            span.set_attribute(KeyValue::new("tepal.job_id", id.to_string()));
        }
    }
}

/// A span of something that has ended.
#[derive(Debug)]
pub struct PastSpan<'a> {
    /// Its name.
    pub name: &'static str,
    /// Its kind.
    pub kind: SpanKind,
    /// Its parent.
    pub parent: &'a SpanContext,
    /// Begin and end.
    pub span: (SystemTime, SystemTime),
    /// Attributes.
    pub attributes: Vec<KeyValue>,
    /// Linked spans.
    pub links: Vec<SpanContext>,
    /// Error code, if it failed.
    pub error: Option<Cow<'static, str>>,
}

impl PastSpan<'_> {
    /// Sends the span. Returns its context, or `None` if traces are off.
    pub fn record(self) -> Option<SpanContext> {
        let tracer = TRACER.get()?;
        let parent = Context::new().with_remote_span_context(self.parent.clone());
        let links = self.links.into_iter().map(Link::with_context).collect();
        let (from, to) = self.span;
        let mut span = SpanBuilder::from_name(self.name)
            .with_kind(self.kind)
            .with_start_time(from)
            .with_attributes(self.attributes)
            .with_links(links)
            .start_with_context(tracer, &parent);
        if let Some(code) = self.error {
            span.set_status(Status::error(code));
        }
        span.end_with_timestamp(to);
        Some(span.span_context().clone())
    }
}

/// The span of a `traceparent`, if traces are on and it is sampled.
#[must_use]
pub fn recorded(traceparent: Option<&str>) -> Option<SpanContext> {
    if !is_on() {
        return None;
    }
    let context = context_of(traceparent).span().span_context().clone();
    (context.is_valid() && context.is_sampled()).then_some(context)
}

/// A `traceparent` as it is passed on; `None` if it is invalid.
#[cfg(any(fuzzing, test))]
pub(crate) fn reread(traceparent: &str) -> Option<String> {
    let span = context_of(Some(traceparent)).span().span_context().clone();
    span.is_valid().then(|| header_of(&span))
}

fn context_of(traceparent: Option<&str>) -> Context {
    let headers: HashMap<_, _> =
        traceparent.map(|value| (HEADER.to_owned(), value.to_owned())).into_iter().collect();
    // An invalid header begins a new trace.
    TraceContextPropagator::new().extract_with_context(&Context::new(), &headers)
}

fn header_of(span: &SpanContext) -> String {
    let flags = span.trace_flags().to_u8() & 1;
    format!("00-{}-{}-{flags:02x}", span.trace_id(), span.span_id())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "in a test, a failed unwrap is a failed test")]
mod tests {
    use super::*;

    const CLIENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn off_it_passes_the_clients_header_on() {
        let submit = Submit::begin(Some(CLIENT.to_owned()));
        assert_eq!(submit.traceparent(), Some(CLIENT));
        assert_eq!(Submit::begin(None).traceparent(), None);
        assert_eq!(recorded(Some(CLIENT)), None);
    }

    #[test]
    fn a_header_is_read_and_written_alike() {
        let context = context_of(Some(CLIENT));
        assert_eq!(header_of(context.span().span_context()), CLIENT);
        assert!(!context_of(Some("00-zz")).span().span_context().is_valid());
    }
}
