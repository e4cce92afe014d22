//! Calls the endpoint of an opaque model over HTTP. One job is a call of its own, or, if the description says so, several jobs are a JSON
//! array that the server answers with an array of as many values.

mod answer;
mod failure;
mod target;

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use futures_util::future::BoxFuture;
use http_body_util::Full;
use hyper::{
    HeaderMap, Method, Request, Response, Uri,
    body::{Bytes, Incoming},
    header::{CONTENT_TYPE, HeaderName, HeaderValue},
};
use serde_json::Value;
use tepal_shared::{
    content::Content,
    model::Model,
    tensor::{Tensor, bytes},
};

use self::{answer::Limits, target::Target};
use super::{Backend, BackendError, ModelCall, OpenError, Verdict};
use crate::client::{self, Client};

const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// Most bytes of a refusal that are read for its text.
const MOST_OF_REFUSAL: usize = 16 << 10;
/// The same job has the same key in each attempt (draft-ietf-httpapi-idempotency-key-header).
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// W3C Trace Context.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const JSON: &str = "application/json";

/// The endpoint of a model.
pub(super) struct Http {
    client: Client,
    target: Target,
    /// The headers of each request. A probe reads the secrets among them again.
    headers: RwLock<Arc<HeaderMap>>,
    model: Model,
    /// Largest result of a job.
    most_bytes: usize,
}

impl Http {
    /// Connects at the first call.
    pub(super) fn open(model: &Model, max_result_bytes: usize) -> Result<Self, OpenError> {
        let endpoint = model.endpoint.as_ref().ok_or_else(|| OpenError::NoEndpoint(model.name.clone()))?;
        let wrong = |source| OpenError::Endpoint { model: model.name.clone(), source };
        let (target, connect, headers) = Target::open(endpoint).map_err(wrong)?;
        Ok(Self {
            client: Client::new(connect),
            target,
            headers: RwLock::new(Arc::new(headers)),
            model: model.clone(),
            most_bytes: model.serving.max_result_bytes.map_or(max_result_bytes, Into::into),
        })
    }

    async fn call(&self, call: ModelCall) -> Result<Vec<Tensor>, BackendError> {
        let batch = &call.batch;
        let input = batch.inputs.first().ok_or_else(|| BackendError::bad_answer("The call has no input"))?;
        let (content_type, body) = self.body(&input.data)?;
        let request = self.request(self.target.method.clone(), self.target.uri.clone(), body);
        let response = self.send(with_job(request, content_type, &call)).await?;
        let limits =
            Limits { values: batch.rows, is_array: self.model.has_batch_axis(), most_bytes: self.most_bytes };
        let data = answer::read(response, limits).await?;
        let (name, shape) = (input.name.clone(), input.shape.clone());
        Ok(vec![Tensor { name, datatype: input.datatype, shape, data }])
    }

    /// The body of a request with these values, and its content type.
    fn body(&self, values: &[u8]) -> Result<(HeaderValue, Bytes), BackendError> {
        let damaged = |error| BackendError::bad_answer("The input cannot be read").because(error);
        let json = HeaderValue::from_static(JSON);
        let mut values = bytes::elements(values).map(Content::read);
        if self.model.has_batch_axis() {
            let mut body = vec![b'['];
            for value in values {
                let Content::Json(text) = value.map_err(damaged)? else { continue };
                if body.len() > 1 {
                    body.push(b',');
                }
                body.extend_from_slice(text.as_bytes());
            }
            body.push(b']');
            return Ok((json, body.into()));
        }
        match values.next().transpose().map_err(damaged)? {
            Some(Content::Bytes { content_type, bytes }) => {
                Ok((HeaderValue::try_from(content_type).unwrap_or(json), Bytes::copy_from_slice(bytes)))
            }
            Some(Content::Json(text)) => Ok((json, Bytes::copy_from_slice(text.as_bytes()))),
            None => Err(BackendError::bad_answer("The call has no input")),
        }
    }

    fn request(&self, method: Method, uri: Uri, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        (*request.method_mut(), *request.uri_mut()) = (method, uri);
        let headers = self.headers.read().unwrap_or_else(PoisonError::into_inner);
        request.headers_mut().clone_from(&headers);
        request
    }

    /// Sends a request. Returns its answer, unless that is a failure.
    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, BackendError> {
        let sent = self.client.send(request).await;
        let response = sent.map_err(|error| failure::of_connection(error, self.target.has_identity))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let (head, body) = response.into_parts();
        // A refusal may have an endless body. Its status says enough.
        let text = tokio::time::timeout(PROBE_TIMEOUT, client::read_start(body, MOST_OF_REFUSAL)).await;
        Err(failure::of_status(head.status, &head.headers, &text.unwrap_or_default()))
    }

    /// Asks the path of probes, or only connects.
    async fn ask(&self) -> Result<(), BackendError> {
        self.read_secrets()?;
        let Some(uri) = &self.target.probe else {
            let connected = self.client.connect(self.target.uri.clone()).await;
            return connected.map_err(|error| failure::of_connect(error, self.target.has_identity));
        };
        self.send(self.request(Method::GET, uri.clone(), Bytes::new())).await.map(drop).map_err(|error| {
            let message = format!("The endpoint's probe failed: {}", error.message);
            BackendError { message, ..error }
        })
    }

    /// Secrets are replaced while the worker runs.
    fn read_secrets(&self) -> Result<(), BackendError> {
        let headers = self.target.headers().map_err(|error| {
            BackendError::new(
                Verdict::Unavailable,
                "model_unavailable",
                "A secret of the endpoint cannot be read",
            )
            .because(error)
        })?;
        *self.headers.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(headers);
        Ok(())
    }
}

/// The request with its content type, and with the job that it serves.
fn with_job(
    mut request: Request<Full<Bytes>>,
    content_type: HeaderValue,
    call: &ModelCall,
) -> Request<Full<Bytes>> {
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, content_type);
    let Some(job) = &call.only_job else { return request };
    if let Ok(key) = HeaderValue::try_from(&call.id) {
        headers.insert(IDEMPOTENCY_KEY, key);
    }
    let traceparent = job.traceparent.as_deref().and_then(|text| HeaderValue::try_from(text).ok());
    traceparent.into_iter().for_each(|text| drop(headers.insert(TRACEPARENT, text)));
    request
}

impl Backend for Http {
    fn name(&self) -> &'static str {
        tepal_shared::model::HTTP
    }

    fn predict(&self, call: ModelCall) -> BoxFuture<'_, Result<Vec<Tensor>, BackendError>> {
        Box::pin(self.call(call))
    }

    fn probe(&self) -> BoxFuture<'_, Result<Value, BackendError>> {
        Box::pin(async {
            let silent =
                || BackendError::new(Verdict::Silent, "model_unavailable", "The endpoint does not answer");
            tokio::time::timeout(PROBE_TIMEOUT, self.ask()).await.unwrap_or_else(|_| Err(silent()))?;
            Ok(self.model.metadata())
        })
    }
}

/// Answers as bytes, as a connection delivers them.
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing {
    pub(crate) use super::{
        answer::fuzzing::values,
        failure::fuzzing::{pause, said},
    };
}
