//! The calls of the Tepal API that a load test makes.

use std::borrow::Cow;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use hyper::http::request::Builder;
use hyper::{Method, Request};
use serde::Deserialize;

use super::client::{Answer, Client};
use super::failure::{Failure, FailureKind};
use super::target::Target;

const KEY_HEADER: HeaderName = HeaderName::from_static("x-api-key");
/// RFC 7240. Here `wait=N`: a long poll of up to N seconds.
const PREFER: HeaderName = HeaderName::from_static("prefer");

/// The API at one server, over one pool of connections.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    pub(crate) target: Target,
    /// Sent as `X-API-Key`. Debug output does not show it.
    pub(crate) key: Option<HeaderValue>,
    /// Longest time until the whole answer; for a long poll, its wait is added.
    pub(crate) timeout: Duration,
    pub(crate) client: Client,
}

/// The states of a job, as the API spells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    Pending,
    Processing,
    Completed,
    Failed,
    Cancelled,
}

impl Status {
    /// Whether the job has ended.
    pub(crate) fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

/// One answer to `GET /job/{id}`.
#[derive(Debug)]
pub(crate) struct JobRecord {
    pub(crate) status: Status,
    /// From `created_at` to `finished_at` by the server's clock, if the record has both.
    pub(crate) turnaround: Option<Duration>,
    /// `max-age` of the answer: the service keeps an ended job this long.
    pub(crate) max_age: Option<Duration>,
    /// The body, to compare with a later read.
    pub(crate) body: Bytes,
}

#[derive(Deserialize)]
struct Submitted<'a> {
    #[serde(borrow)]
    job_id: Cow<'a, str>,
}

#[derive(Deserialize)]
struct JobBody<'a> {
    #[serde(borrow)]
    job_id: Cow<'a, str>,
    status: Status,
    #[serde(borrow)]
    created_at: Option<Cow<'a, str>>,
    #[serde(borrow)]
    finished_at: Option<Cow<'a, str>>,
}

impl Api {
    /// `POST /predict`: the id of the accepted job.
    ///
    /// # Errors
    /// Those of the client, any status but 202, or a 202 without a `job_id`.
    pub(crate) async fn submit(&self, body: Bytes) -> Result<String, Failure> {
        let request = self.request(Method::POST, "/predict").header(CONTENT_TYPE, "application/json");
        let answer = self.send(request, body, self.timeout).await?;
        let body = expect_status(&answer, 202)?;
        let submitted: Submitted<'_> = serde_json::from_slice(body).map_err(|_| FailureKind::Malformed)?;
        Ok(submitted.job_id.into_owned())
    }

    /// `GET /job/{id}`. With `wait`, asks the server to hold the answer until the job has ended. A server may ignore this.
    ///
    /// # Errors
    /// Those of [`Api::record`], a body that is no job record, or the record of another job.
    pub(crate) async fn job(&self, id: &str, wait: Option<Duration>) -> Result<JobRecord, Failure> {
        let Answer { body: bytes, max_age, .. } = self.record(id, wait).await?;
        let body: JobBody<'_> = serde_json::from_slice(&bytes).map_err(|_| FailureKind::Malformed)?;
        if body.job_id != id {
            return Err(FailureKind::OtherJob.into());
        }
        Ok(JobRecord { status: body.status, turnaround: body.turnaround(), max_age, body: bytes })
    }

    /// Like [`Api::job`], but returns the answer unparsed, to compare its bytes.
    ///
    /// # Errors
    /// Those of the client, or any status but 200.
    pub(crate) async fn record(&self, id: &str, wait: Option<Duration>) -> Result<Answer, Failure> {
        let mut request = self.request(Method::GET, &format!("/job/{id}"));
        let seconds = wait.map_or(0, |wait| wait.as_secs());
        if seconds > 0 {
            request = request.header(PREFER, format!("wait={seconds}"));
        }
        let limit = self.timeout + Duration::from_secs(seconds);
        let answer = self.send(request, Bytes::new(), limit).await?;
        expect_status(&answer, 200)?;
        Ok(answer)
    }

    /// `GET /health`; succeeds if the service is healthy.
    ///
    /// # Errors
    /// Those of the client, or any status but 200.
    pub(crate) async fn health(&self) -> Result<(), Failure> {
        let answer = self.get("/health").await?;
        expect_status(&answer, 200).map(|_| ())
    }

    /// `GET` of any route.
    ///
    /// # Errors
    /// Those of the client.
    pub(crate) async fn get(&self, route: &str) -> Result<Answer, Failure> {
        self.send(self.request(Method::GET, route), Bytes::new(), self.timeout).await
    }

    fn request(&self, method: Method, route: &str) -> Builder {
        let request = Request::builder().method(method).uri(self.target.path(route));
        let request = request.header(HOST, self.target.host_header()).header(ACCEPT, "application/json");
        match &self.key {
            Some(key) => request.header(KEY_HEADER, key.clone()),
            None => request,
        }
    }

    /// A request cannot be built when the server gave an id that no URL can contain.
    async fn send(&self, request: Builder, body: Bytes, limit: Duration) -> Result<Answer, Failure> {
        let request = request.body(Full::new(body)).map_err(|_| FailureKind::Malformed)?;
        self.client.send(request, limit).await
    }
}

fn expect_status(answer: &Answer, wanted: u16) -> Result<&Bytes, Failure> {
    let status = answer.status.as_u16();
    if status == wanted {
        return Ok(&answer.body);
    }
    Err(Failure { kind: FailureKind::Status(status), retry_after: answer.retry_after })
}

impl JobBody<'_> {
    fn turnaround(&self) -> Option<Duration> {
        let created = humantime::parse_rfc3339(self.created_at.as_deref()?).ok()?;
        let finished = humantime::parse_rfc3339(self.finished_at.as_deref()?).ok()?;
        finished.duration_since(created).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finished_job_has_a_turnaround() {
        let body = br#"{"job_id":"a","status":"completed","result":{"prediction":0},
            "created_at":"2026-01-01T00:00:00.100Z","finished_at":"2026-01-01T00:00:01.350Z","attempts":1}"#;
        let job: JobBody<'_> = serde_json::from_slice(body).unwrap();
        assert_eq!(job.status, Status::Completed);
        assert_eq!(job.turnaround(), Some(Duration::from_millis(1_250)));
    }

    #[test]
    fn a_job_without_times_has_no_turnaround_and_an_unknown_status_is_refused() {
        let job: JobBody<'_> = serde_json::from_slice(br#"{"job_id":"a","status":"pending"}"#).unwrap();
        assert_eq!((job.status.is_terminal(), job.turnaround()), (false, None));
        assert!(serde_json::from_slice::<JobBody<'_>>(br#"{"job_id":"a","status":"gone"}"#).is_err());
    }
}
