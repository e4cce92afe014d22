//! The four calls of the Tepal API that a load test makes, and what their answers mean.

use std::borrow::Cow;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use hyper::http::request::Builder;
use hyper::{Method, Request};
use serde::Deserialize;

use crate::client::{Answer, Client};
use crate::failure::{Failure, FailureKind};
use crate::target::Target;

/// What a client identifies itself with.
const KEY_HEADER: HeaderName = HeaderName::from_static("x-api-key");
/// RFC 7240: here `wait=N`, a long poll of up to N seconds.
const PREFER: HeaderName = HeaderName::from_static("prefer");

/// The API at one server, over one pool of connections.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    /// Where the server is.
    pub(crate) target: Target,
    /// The key sent as `X-API-Key`; marked sensitive, so it prints as such.
    pub(crate) key: Option<HeaderValue>,
    /// How long any answer may take, beside what a long poll asks for.
    pub(crate) timeout: Duration,
    /// The connections.
    pub(crate) client: Client,
}

/// The five states of a job, as the API spells them.
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
    /// Will the job never change again?
    pub(crate) fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

/// One answer to `GET /job/{id}`.
#[derive(Debug)]
pub(crate) struct JobRecord {
    /// Where the job stands.
    pub(crate) status: Status,
    /// From `created_at` to `finished_at`, by the server's clock; if it gave both.
    pub(crate) turnaround: Option<Duration>,
    /// How long the answer may be cached: so long the service keeps a job that has ended.
    pub(crate) max_age: Option<Duration>,
    /// The body as it came, to compare with a later read.
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
    /// What the client reports, any status but 202, or a 202 without a `job_id`.
    pub(crate) async fn submit(&self, body: Bytes) -> Result<String, Failure> {
        let request = self.request(Method::POST, "/predict").header(CONTENT_TYPE, "application/json");
        let answer = self.send(request, body, self.timeout).await?;
        let body = expect_status(&answer, 202)?;
        let submitted: Submitted<'_> = serde_json::from_slice(body).map_err(|_| FailureKind::Malformed)?;
        Ok(submitted.job_id.into_owned())
    }

    /// `GET /job/{id}`; with `wait`, asks the server to hold the answer until the job has finished. A server may
    /// ignore that.
    ///
    /// # Errors
    /// As [`Api::record`], a body that is no job record, or the record of another job.
    pub(crate) async fn job(&self, id: &str, wait: Option<Duration>) -> Result<JobRecord, Failure> {
        let Answer { body: bytes, max_age, .. } = self.record(id, wait).await?;
        let body: JobBody<'_> = serde_json::from_slice(&bytes).map_err(|_| FailureKind::Malformed)?;
        if body.job_id != id {
            return Err(FailureKind::OtherJob.into());
        }
        Ok(JobRecord { status: body.status, turnaround: body.turnaround(), max_age, body: bytes })
    }

    /// As [`Api::job`], but the answer as it came, whatever its body is, for whoever compares the bytes.
    ///
    /// # Errors
    /// What the client reports, or any status but 200.
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

    /// `GET /health`: is everything healthy?
    ///
    /// # Errors
    /// What the client reports, or any status but 200.
    pub(crate) async fn health(&self) -> Result<(), Failure> {
        let answer = self.get("/health").await?;
        expect_status(&answer, 200).map(|_| ())
    }

    /// `GET` of any route, for whoever reads the answer itself.
    ///
    /// # Errors
    /// What the client reports.
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

    /// A request that cannot be built has an id from the server in its path that no URL can hold.
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
    fn a_finished_job_tells_its_turnaround() {
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
