//! A receiver of traces over OTLP/gRPC that keeps every span.

use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::hex;

/// A span and the service that sent it.
#[derive(Clone)]
pub(crate) struct Received {
    pub(crate) service: String,
    pub(crate) span: Span,
}

#[derive(Clone, Default)]
struct Store(Arc<Mutex<Vec<Received>>>);

/// The running receiver.
pub(crate) struct Collector {
    store: Store,
    endpoint: String,
}

impl Collector {
    pub(crate) async fn start() -> Self {
        let store = Store::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let service = TraceServiceServer::new(store.clone());
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        Self { store, endpoint }
    }

    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The span of that name in that trace.
    pub(crate) fn find(&self, trace: &str, name: &str) -> Option<Received> {
        let spans = self.store.0.lock().unwrap();
        spans.iter().find(|one| one.span.name == name && hex(&one.span.trace_id) == trace).cloned()
    }

    pub(crate) fn spans_of(&self, trace: &str) -> usize {
        self.store.0.lock().unwrap().iter().filter(|one| hex(&one.span.trace_id) == trace).count()
    }
}

#[tonic::async_trait]
impl TraceService for Store {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut spans = self.0.lock().unwrap();
        for from_service in request.into_inner().resource_spans {
            let attributes = from_service.resource.map(|resource| resource.attributes).unwrap_or_default();
            let service = value(&attributes, "service.name");
            let sent = from_service.scope_spans.into_iter().flat_map(|scope| scope.spans);
            spans.extend(sent.map(|span| Received { service: service.clone(), span }));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// The text of a span's attribute; empty if it has none.
pub(crate) fn text(span: &Span, key: &str) -> String {
    value(&span.attributes, key)
}

fn value(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|attribute| attribute.value.as_ref()).and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        _ => String::new(),
    }
}
