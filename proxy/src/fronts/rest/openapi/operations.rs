//! What each operation takes and answers.

use serde_json::{Value, json};
use tepal_shared::{job::JobStatus, model::Model, queue::error::StoreError};

use super::{Operation, parts::*};
use crate::{
    error::ApiError,
    fronts::rest::{CURSOR, DEFAULT_LIMIT, MOST_IDS, MOST_JOBS, MOST_LISTED, UNKNOWN_RETRY_AFTER},
    jobs::quota,
};

pub(crate) fn predict(model: &Model, largest_body: usize) -> Operation {
    Operation {
        id: "predict",
        summary: "Submit a job",
        description:
            "Checks the rows against the model's description, stores the job and answers at once. With \
            `Prefer: wait=N` the answer comes as soon as the job has ended, at most N seconds later."
                .to_owned(),
        parameters: vec![idempotency_key(), prefer()],
        body: Some(body("Submission", &json!({"data": model.sample}))),
        answers: vec![(200, finished()), (202, accepted())],
        errors: [reading_a_body(largest_body), submitting()].concat_errors(),
    }
}

pub(crate) fn predict_sample() -> Operation {
    Operation {
        id: "predictSample",
        summary: "Submit the model's sample",
        description: "Submits the sample of the model's description; a body is ignored.".to_owned(),
        parameters: vec![idempotency_key(), prefer()],
        body: None,
        answers: vec![(200, finished()), (202, accepted())],
        errors: [
            vec![invalid_header(), ApiError::RepeatedHeader("Idempotency-Key"), ApiError::NotAcceptable],
            submitting(),
        ]
        .concat_errors(),
    }
}

pub(crate) fn predict_batch(model: &Model, largest_body: usize) -> Operation {
    let job = json!({"data": model.sample});
    let lines = format!("{job}\n{job}\n");
    let answer = |description: &str, refused: bool| {
        let mut jobs = vec![json!({"job_id": JOB_ID, "status": "pending"})];
        if refused {
            let problem = invalid_body().problem("/predict/batch#/1", REQUEST_ID);
            jobs.push(json!({"problem": serde_json::from_slice::<Value>(&problem).unwrap_or_default()}));
        }
        let example = json!({"accepted": 1, "refused": u8::from(refused), "jobs": jobs});
        json_answer(description, "BatchAnswer", &example)
    };
    Operation {
        id: "predictBatch",
        summary: "Submit many jobs",
        description: format!(
            "Accepts up to {MOST_JOBS} jobs in one round trip, as a list or one a line. Each is a job of its own, with its \
             own outcome, in the order of the request."
        ),
        parameters: vec![idempotency_key()],
        body: Some(json!({"required": true, "content": {
            "application/json": {"schema": schema("Batch"), "example": [job, job]},
            "application/x-ndjson": {
                // OpenAPI 3.1 cannot describe lines. At least one must not be blank.
                "schema": {
                    "type": "string",
                    "pattern": "[^ \\t\\n\\f\\r]",
                    "description": "One Submission a line",
                },
                "example": lines,
            },
        }})),
        answers: vec![
            (202, answer("All jobs are accepted", false)),
            (207, answer("Some jobs are refused; each position tells", true)),
        ],
        errors: [reading_a_body(largest_body), vec![ApiError::NotDeclaredJsonLines], submitting()]
            .concat_errors(),
    }
}

pub(crate) fn show() -> Operation {
    let mut found = json_answer("The job", "Job", &completed());
    found["content"]["text/event-stream"] = json!({
        "schema": {"type": "string"},
        "example": format!("retry: 1000\nid: 1-completed-1-0-0\nevent: outcome\ndata: {}\n\n", completed()),
    });
    found["headers"] = json!({
        "ETag": etag("Names this state of the job"),
        "Retry-After": {"description": "While the job has not ended", "schema": {"type": "integer"}},
        "Preference-Applied": applied(),
    });
    Operation {
        id: "showJob",
        summary: "Read a job",
        description: "The job as it stands; with `Prefer: wait=N` as soon as it has ended; with `Accept: \
            text/event-stream` an event for each change, the last one with the outcome."
            .to_owned(),
        parameters: vec![
            job_id(),
            prefer(),
            if_none_match("An ETag of this job", "\"1-pending-0-0-0\""),
            header(
                "Last-Event-ID",
                "The last event seen, for a stream",
                &json!({"type": "string"}),
                "1-pending-0-0-0",
            ),
        ],
        body: None,
        answers: vec![
            (200, found),
            (204, json!({"description": "A stream would have nothing more to tell"})),
            (304, json!({"description": "The job has not changed"})),
        ],
        errors: [vec![ApiError::NotAcceptable, ApiError::JobNotFound, ApiError::Overloaded], reading()]
            .concat_errors(),
    }
}

pub(crate) fn cancel() -> Operation {
    let cancelled = json!({"job_id": JOB_ID, "status": "cancelled"});
    Operation {
        id: "cancelJob",
        summary: "Cancel a job",
        description:
            "Ends a job that has not ended. Its record stays and can be read. Cancelling it again is fine."
                .to_owned(),
        parameters: vec![job_id()],
        body: None,
        answers: vec![(200, json_answer("The job is cancelled", "Accepted", &cancelled))],
        errors: [
            vec![
                ApiError::NotAcceptable,
                ApiError::JobNotFound,
                ApiError::AlreadyFinished(JobStatus::Completed),
                cannot_persist(),
                unknown_outcome(),
            ],
            reading(),
        ]
        .concat_errors(),
    }
}

pub(crate) fn retry() -> Operation {
    Operation {
        id: "retryJob",
        summary: "Run a job again",
        description: "Submits the input of a failed or cancelled job as a new job, which names the old one in `retry_of`.".to_owned(),
        parameters: vec![job_id(), prefer()],
        body: None,
        answers: vec![(200, finished()), (202, accepted())],
        errors: [
            vec![
                ApiError::NotAcceptable,
                ApiError::JobNotFound,
                ApiError::NotRepeatable(JobStatus::Completed),
                ApiError::QueueFull(UNKNOWN_RETRY_AFTER),
                ApiError::StorageQuota(quota::retry_after(None)),
                out_of_memory(),
                cannot_persist(),
                unknown_outcome(),
                ApiError::Store(StoreError::NotReplicated { reached: 0, required: 1 }),
            ],
            reading(),
        ]
        .concat_errors(),
    }
}

pub(crate) fn list() -> Operation {
    let mut listed = completed();
    if let Some(fields) = listed.as_object_mut() {
        fields.remove("result");
    }
    let page = json!({"jobs": [listed], "next_cursor": SOME_CURSOR});
    let query = |name: &str, description: &str, schema: Value, example: Value| json!({"name": name, "in": "query", "description": description, "schema": schema, "example": example});
    let time = json!({"type": "string", "format": "date-time", "pattern": time_pattern()});
    Operation {
        id: "listJobs",
        summary: "List jobs",
        description: "Newest first, without results. While `next_cursor` is there, more may follow, also after a short or \
            empty page of a filtered listing.".to_owned(),
        parameters: vec![
            query("status", "Only jobs in this state", schema("JobStatus"), json!("failed")),
            query("priority", "Only jobs of this priority", schema("Priority"), json!("high")),
            query("created_after", "Only jobs accepted later", time.clone(), json!("2026-11-25T12:00:00Z")),
            query("created_before", "Only jobs accepted earlier", time, json!("2026-11-26T12:00:00Z")),
            query(
                "limit",
                "Most jobs of the page",
                json!({"type": "integer", "minimum": 1, "maximum": MOST_LISTED, "default": DEFAULT_LIMIT}),
                json!(DEFAULT_LIMIT),
            ),
            query(
                "cursor",
                "The `next_cursor` of the page before, with the same filters and the same key; opaque",
                json!({"type": "string", "pattern": CURSOR}),
                json!(SOME_CURSOR),
            ),
        ],
        body: None,
        answers: vec![(200, json_answer("A page", "Page", &page))],
        errors: [vec![ApiError::NotAcceptable, ApiError::Overloaded, invalid_query()], reading()].concat_errors(),
    }
}

const SOME_CURSOR: &str = "mLSTdYKjV0cRzvQ8yGn2aOeXhBpW5uJ7IfDkA1tE9s4CqM6x3oZl_r-NbHgU";

/// A moment since 1970, in UTC, of a day that exists. The letters may be small (RFC 3339, section 5.6).
fn time_pattern() -> String {
    let year = "(19[7-9][0-9]|[2-9][0-9]{3})";
    let leap_year =
        "(19(7[26]|8[048]|9[26])|[2-9][0-9](0[48]|[2468][048]|[13579][26])|([2468][048]|[3579][26])00)";
    let long = "(0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])";
    let short = "(0[469]|11)-(0[1-9]|[12][0-9]|30)";
    let february = "02-(0[1-9]|1[0-9]|2[0-8])";
    let day = format!("({year}-({long}|{short}|{february})|{leap_year}-02-29)");
    format!("^{day}[Tt]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{{1,9}})?[Zz]$")
}

pub(crate) fn look_up(largest_body: usize) -> Operation {
    let answer = json!({"jobs": [completed()], "not_found": ["a1b2c3"]});
    Operation {
        id: "lookUpJobs",
        summary: "Read many jobs",
        description: format!(
            "Up to {MOST_IDS} jobs by their ids, in the order of the request. When the answer has grown large, the \
             remaining ids are given back in `not_read`."
        ),
        parameters: vec![],
        body: Some(body("Lookup", &json!({"job_ids": [JOB_ID, "a1b2c3"]}))),
        answers: vec![(200, json_answer("The jobs", "LookupAnswer", &answer))],
        errors: [reading_a_body(largest_body), reading()].concat_errors(),
    }
}

pub(crate) fn health() -> Operation {
    let well = json!({"status": "healthy", "components": {"redis": "ok", "onnx": "ok"}});
    let ill = json!({"status": "unhealthy", "components": {"redis": "ok", "onnx": "down"}});
    Operation {
        id: "health",
        summary: "The state of each component",
        description: "As of the last second.".to_owned(),
        parameters: vec![],
        body: None,
        answers: vec![
            (200, json_answer("All components are ok", "Health", &well)),
            (503, json_answer("A component is not ok", "Health", &ill)),
        ],
        errors: vec![ApiError::NotAcceptable],
    }
    .with_tag()
}

pub(crate) fn metadata(model: &Model) -> Operation {
    let example = json!({
        "model_spec": {"name": model.name, "version": model.version},
        "metadata": {"signature_def": {}},
    });
    Operation {
        id: "metadata",
        summary: "The model's signature",
        description: "As TensorFlow Serving's REST API prints it.".to_owned(),
        parameters: vec![],
        body: None,
        answers: vec![(200, json_answer("The metadata", "Metadata", &example))],
        errors: vec![
            ApiError::NotAcceptable,
            ApiError::NoMetadata,
            ApiError::Store(StoreError::Disconnected),
            wrong_topology(),
        ],
    }
}

pub(crate) fn text(
    id: &'static str,
    summary: &'static str,
    media_type: &str,
    example: &str,
    errors: Vec<ApiError>,
) -> Operation {
    let answer = json!({
        "description": summary,
        "content": {media_type: {"schema": {"type": "string"}, "example": example}},
    });
    Operation {
        id,
        summary,
        description: String::new(),
        parameters: vec![],
        body: None,
        answers: vec![(200, answer)],
        errors,
    }
    .with_tag()
}

pub(crate) fn contract() -> Operation {
    let answer = json!({
        "description": "OpenAPI 3.1",
        "content": {"application/json": {"schema": {"type": "object"}, "example": {"openapi": "3.1.0"}}},
    });
    Operation {
        id: "contract",
        summary: "This document",
        description: String::new(),
        parameters: vec![],
        body: None,
        answers: vec![(200, answer)],
        errors: vec![ApiError::NotAcceptable],
    }
    .with_tag()
}

#[cfg(test)]
mod tests {
    use regex::Regex;

    use super::*;

    #[test]
    fn every_day_that_exists_fits_the_pattern_and_no_other() {
        let pattern = Regex::new(&time_pattern()).unwrap();
        for year in (1968..2030).chain(2096..2106).chain([2400, 3000, 9200, 9999]) {
            for (month, day) in (0..=13).flat_map(|month| (0..=32).map(move |day| (month, day))) {
                let time = format!("{year}-{month:02}-{day:02}T23:59:59.999Z");
                let exists = humantime::parse_rfc3339(&time).is_ok();
                assert_eq!(pattern.is_match(&time), exists, "{time}");
                assert_eq!(pattern.is_match(&time.to_ascii_lowercase()), exists, "{time}");
            }
        }
    }

    #[test]
    fn the_example_of_a_cursor_has_its_form() {
        assert!(Regex::new(CURSOR).unwrap().is_match(SOME_CURSOR));
    }
}
