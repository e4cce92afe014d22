//! A job as JSON. Members that do not apply are omitted, never null.

use std::io;

use schemars::{JsonSchema, Schema};
use serde::Serialize;
use serde_json::{Value, json as value};
use tepal_shared::{
    content,
    job::{Job, JobId, JobResult, JobStatus, Priority},
    tensor::{Tensor, open_inference::json},
};

use super::{super::openapi::parts::JOB_ID, time::Time};

/// The member that [`before_result`] appends.
const RESULT: &str = "result";

/// A job without its result.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Job", description = "Members that do not apply are omitted", transform = add_result)]
pub(crate) struct JobView<'a> {
    job_id: JobId,
    status: JobStatus,
    /// Why it failed, for people
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    /// Why it failed, for programs
    #[serde(skip_serializing_if = "Option::is_none")]
    error_code: Option<&'a str>,
    model: &'a str,
    priority: Priority,
    /// Attempts that began
    attempts: u64,
    /// When it was accepted
    created_at: Time,
    /// When its first attempt began
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<Time>,
    /// When it ended; after that no byte changes
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<Time>,
    /// When its next attempt is due, while it waits for one
    #[serde(skip_serializing_if = "Option::is_none")]
    next_attempt_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_of: Option<JobId>,
}

/// The result is JSON text already, and no member of the type.
fn add_result(schema: &mut Schema) {
    let result = value!({
        "description": "Once completed. An object; for several rows `predictions` has one such object for each. Of a job with \
            `inputs` it has only `outputs`, a list of tensors. Of an opaque model it is the JSON that its server answered, or \
            `{\"content_type\", \"b64\"}`",
    });
    if let Some(members) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        members.insert(RESULT.to_owned(), result);
    }
}

impl<'a> JobView<'a> {
    /// The view of `job`.
    pub(crate) fn of(job: &'a Job) -> Self {
        Self {
            job_id: job.id,
            status: job.status,
            error: job.error.as_deref(),
            error_code: job.error_code.as_deref(),
            model: &job.model,
            priority: job.priority,
            attempts: job.attempts,
            created_at: Time(job.created_at_ms),
            started_at: job.started_at_ms.map(Time),
            finished_at: job.finished_at_ms.map(Time),
            next_attempt_at: job.next_attempt_at_ms.map(Time),
            retry_of: job.retry_of,
        }
    }
}

/// The body of `GET /job/{id}` for a job without a large result, in one line. JSON text is inserted unchanged.
pub(crate) fn body(job: &Job) -> String {
    match &job.result {
        Some(JobResult::Inline(text)) => with_text(job, text),
        Some(JobResult::Tensors(tensors)) => {
            with_result(job, |text| json::write_outputs(tensors.iter().map(Tensor::view), text))
        }
        Some(JobResult::Bytes { content_type, bytes }) => {
            with_result(job, |text| content::write_json(content_type, bytes, text))
        }
        Some(JobResult::Large { .. } | JobResult::LargeTensors { .. } | JobResult::LargeBytes { .. })
        | None => without_result(job),
    }
}

fn with_text(job: &Job, result: &str) -> String {
    let mut body = before_result(job, result.len() + AFTER_RESULT.len());
    if result.bytes().any(|byte| matches!(byte, b'\n' | b'\r')) {
        // In JSON they are whitespace, but they would split the data of an event.
        body.push_str(&result.replace(['\n', '\r'], " "));
    } else {
        body.push_str(result);
    }
    body.push_str(AFTER_RESULT);
    body
}

/// The body with a result that is written in one line.
pub(super) fn with_result(job: &Job, write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
    let mut body = before_result(job, 0).into_bytes();
    // Writing JSON to memory cannot fail.
    let _ = write(&mut body);
    body.extend_from_slice(AFTER_RESULT.as_bytes());
    String::from_utf8(body).unwrap_or_default()
}

/// The body of `GET /job/{id}` before and after the result.
pub(crate) fn around_result(job: &Job) -> (String, &'static str) {
    (before_result(job, 0), AFTER_RESULT)
}

const AFTER_RESULT: &str = "}";

/// The result has room for so many more bytes.
fn before_result(job: &Job, more: usize) -> String {
    let mut body = without_result(job);
    body.truncate(body.len().saturating_sub(1));
    body.reserve_exact(",\"\":".len() + RESULT.len() + more);
    body.extend([",\"", RESULT, "\":"]);
    body
}

fn without_result(job: &Job) -> String {
    // Serialising this type cannot fail: its keys are strings.
    serde_json::to_string(&JobView::of(job)).unwrap_or_default()
}

/// Identifies the job's state: two bodies with the same tag are equal, byte for byte. Fields that never change are not part of
/// it. The leading number must grow with every change of the body's form.
pub(super) fn tag(job: &Job) -> String {
    let started = job.started_at_ms.unwrap_or(0);
    let last = job.finished_at_ms.or(job.next_attempt_at_ms).unwrap_or(0);
    format!("2-{}-{}-{started:x}-{last:x}", job.status, job.attempts)
}

/// The id of the examples.
pub(crate) fn example_id() -> JobId {
    JOB_ID.parse().unwrap_or_else(|_| JobId::new(0))
}

/// A job for examples.
pub(crate) fn example() -> Job {
    let created_at_ms = 1_795_608_000_000;
    let result = r#"{"prediction":0,"class_name":"setosa","probabilities":[0.97,0.02,0.01]}"#;
    Job {
        id: example_id(),
        status: JobStatus::Completed,
        model: "iris".to_owned(),
        priority: Priority::Normal,
        created_at_ms,
        started_at_ms: Some(created_at_ms + 4),
        finished_at_ms: Some(created_at_ms + 6),
        next_attempt_at_ms: None,
        attempts: 1,
        result: Some(JobResult::Inline(result.to_owned())),
        error: None,
        error_code: None,
        retry_of: None,
        deadline_ms: None,
        owner: None,
    }
}

/// The body of the example.
pub(crate) fn example_body() -> Value {
    serde_json::from_str(&body(&example())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use tepal_shared::tensor::DataType;

    use super::*;

    fn job() -> Job {
        Job {
            id: JobId::new(0),
            status: JobStatus::Completed,
            model: "iris".to_owned(),
            priority: Priority::Normal,
            created_at_ms: 1_763_046_000_001,
            started_at_ms: Some(1_763_046_000_020),
            finished_at_ms: Some(1_763_046_001_000),
            next_attempt_at_ms: None,
            attempts: 1,
            result: Some(JobResult::Inline(r#"{"prediction":0}"#.to_owned())),
            error: None,
            error_code: None,
            retry_of: None,
            deadline_ms: None,
            owner: None,
        }
    }

    #[test]
    fn a_completed_job_has_its_result_and_its_times() {
        let job = job();
        let expected = value!({
            "job_id": job.id.to_string(),
            "status": "completed",
            "model": "iris",
            "priority": "normal",
            "attempts": 1,
            "created_at": "2025-11-13T15:00:00.001Z",
            "started_at": "2025-11-13T15:00:00.020Z",
            "finished_at": "2025-11-13T15:00:01.000Z",
            "result": {"prediction": 0},
        });
        assert_eq!(serde_json::from_str::<Value>(&body(&job)).unwrap(), expected);
    }

    #[test]
    fn a_body_is_one_line() {
        let mut job = job();
        let one = body(&job);
        job.result = Some(JobResult::Inline("{\"prediction\":\n0\r}".to_owned()));
        assert_eq!(body(&job).replace(' ', ""), one);
        let large = Job { result: Some(JobResult::Large { bytes: 9 }), ..job.clone() };
        let (before, after) = around_result(&large);
        assert_eq!([&before, r#"{"prediction":0}"#, after].concat(), one);
    }

    #[test]
    fn tensors_are_shown_as_outputs() {
        let tensor = Tensor {
            name: "y".to_owned(),
            datatype: DataType::Fp32,
            shape: vec![1, 2],
            data: [0.5_f32, f32::NAN].map(f32::to_le_bytes).concat(),
        };
        let job = Job { result: Some(JobResult::Tensors(vec![tensor])), ..job() };
        let result =
            r#","result":{"outputs":[{"name":"y","shape":[1,2],"datatype":"FP32","data":[0.5,"NaN"]}]}}"#;
        assert!(body(&job).ends_with(result), "{}", body(&job));
    }

    #[test]
    fn bytes_are_shown_with_their_content_type() {
        let (content_type, bytes) = ("image/png".to_owned(), b"\x89PNG".to_vec());
        let job = Job { result: Some(JobResult::Bytes { content_type, bytes }), ..job() };
        let result = r#","result":{"content_type":"image/png","b64":"iVBORw=="}}"#;
        assert!(body(&job).ends_with(result), "{}", body(&job));
    }

    #[test]
    fn every_state_of_a_job_has_its_own_tag() {
        let ended = job();
        let at = |status, attempts, started_at_ms, next_attempt_at_ms| Job {
            status,
            attempts,
            started_at_ms,
            next_attempt_at_ms,
            finished_at_ms: None,
            result: None,
            ..ended.clone()
        };
        let life = [
            at(JobStatus::Pending, 0, None, None),
            at(JobStatus::Processing, 1, Some(5), None),
            at(JobStatus::Pending, 1, Some(5), Some(9)),
            at(JobStatus::Processing, 2, Some(5), None),
            at(JobStatus::Pending, 1, Some(5), Some(10)),
            ended.clone(),
        ];
        let tags: std::collections::HashSet<_> = life.iter().map(tag).collect();
        let bodies: std::collections::HashSet<_> = life.iter().map(body).collect();
        assert_eq!((tags.len(), bodies.len()), (life.len(), life.len()));
        assert_eq!(tag(&ended), tag(&ended.clone()));
    }
}
