//! The answer to a batch: the outcome of each job, within a bounded number of bytes.

use std::sync::Arc;

use axum::{
    http::{StatusCode, header::RETRY_AFTER},
    response::Response,
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
#[cfg(any(fuzzing, test))]
use tepal_shared::job::JobId;
use tepal_shared::job::JobStatus;

use super::super::{
    accepted::AcceptedJob,
    openapi::parts::{REQUEST_ID, invalid_body},
};
#[cfg(any(fuzzing, test))]
use super::Item;
use crate::{
    error::{ApiError, BriefProblem, MOST_BYTES, Problem},
    http::{
        answer::{as_json, held, paid},
        budget::Share,
    },
    jobs::intake::Accepted,
};

/// The first rejected jobs get a complete problem, the others only the parts that a program needs.
pub(super) const COMPLETE: usize = 20;
/// An answer has at most so many bytes for each job, in addition to those of one error.
pub(crate) const BYTES_A_JOB: usize = 128;
/// No outcome but a complete problem needs more.
const LEAST_BYTES_A_JOB: usize = 104;
/// Bytes around a problem.
const FRAME: usize = r#"{"problem":}"#.len();
/// The end of an answer, after its jobs.
const END: &str = "]}";
const PATH: &str = "/predict/batch";

/// The outcome of one item.
pub(super) type Outcome = Result<Accepted, ApiError>;

/// The answer to these items if all valid ones were stored.
#[cfg(any(fuzzing, test))]
pub(crate) fn answer_to(items: Vec<Item>) -> String {
    let stored = |_| (JobId::new(0), JobStatus::Processing);
    let outcomes: Vec<Outcome> =
        items.into_iter().map(|item| item.map(stored).map_err(|refused| refused.error)).collect();
    let refused = outcomes.iter().filter(|outcome| outcome.is_err()).count();
    body(&outcomes, refused, "00000000-0000-0000-0000-000000000000")
}

/// The answer: 202 if all jobs were accepted, else 207.
pub(super) fn answer(outcomes: &[Outcome], request_id: &str, share: Share) -> Response {
    let refused = outcomes.iter().filter(|outcome| outcome.is_err()).count();
    let mut response = as_json(paid([held(body(outcomes, refused, request_id), Arc::new(share))]));
    *response.status_mut() = if refused == 0 { StatusCode::ACCEPTED } else { StatusCode::MULTI_STATUS };
    let errors = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
    if let Some(seconds) = errors.filter_map(ApiError::retry_after).max() {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

/// The answer. Its jobs are written one by one, because the answer is bounded.
#[derive(Serialize, JsonSchema)]
#[schemars(description = "The outcome of each job, in the order of the request")]
pub(super) struct BatchAnswer<'a> {
    accepted: usize,
    refused: usize,
    jobs: Vec<Position<'a>>,
}

/// What became of one job.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
enum Position<'a> {
    Accepted(AcceptedJob),
    Refused { problem: AnyProblem<'a> },
}

#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
enum AnyProblem<'a> {
    Complete(Problem<'a>),
    Brief(BriefProblem<'a>),
}

/// The outcomes, in at most [`MOST_BYTES`] and [`BYTES_A_JOB`] for each.
fn body(outcomes: &[Outcome], refused: usize, request_id: &str) -> String {
    let mut body = text(&BatchAnswer { accepted: outcomes.len() - refused, refused, jobs: vec![] });
    body.truncate(body.len().saturating_sub(END.len()));
    let most = MOST_BYTES + BYTES_A_JOB * outcomes.len();
    let mut complete = refused.min(COMPLETE);
    for (index, outcome) in outcomes.iter().enumerate() {
        if index > 0 {
            body.push(',');
        }
        let later = LEAST_BYTES_A_JOB * (outcomes.len() - index - 1);
        let room = most.saturating_sub(later + body.len() + END.len());
        match outcome {
            Ok((job_id, status)) => body.push_str(&text(&AcceptedJob { job_id: *job_id, status: *status })),
            Err(error) => {
                let instance = format!("{PATH}#/{index}");
                body.push_str(&refusal(error, &instance, request_id, room, &mut complete));
            }
        }
    }
    body.push_str(END);
    body
}

/// One of the next `complete` problems: complete if it fits, with as many of its mistakes as fit into its share of the room.
fn refusal(error: &ApiError, instance: &str, request_id: &str, room: usize, complete: &mut usize) -> String {
    if let Some(others) = complete.checked_sub(1) {
        let share = (room.saturating_sub(FRAME) / (others + 1)).min(MOST_BYTES);
        *complete = others;
        let problem = AnyProblem::Complete(error.problem_within(share, instance, request_id));
        let text = text(&Position::Refused { problem });
        if text.len() <= room {
            return text;
        }
    }
    text(&Position::Refused { problem: AnyProblem::Brief(error.brief_problem()) })
}

fn text(value: &impl Serialize) -> String {
    // Serialising these types cannot fail: they have string keys, and integers only.
    serde_json::to_string(value).unwrap_or_default()
}

/// An answer for the contract.
pub(super) fn example(refused: bool) -> Value {
    let error = invalid_body();
    let mut jobs = vec![Position::Accepted(AcceptedJob::example(JobStatus::Pending))];
    if refused {
        let problem = error.problem_within(MOST_BYTES, "/predict/batch#/1", REQUEST_ID);
        jobs.push(Position::Refused { problem: AnyProblem::Complete(problem) });
    }
    let answer = BatchAnswer { accepted: 1, refused: usize::from(refused), jobs };
    serde_json::to_value(answer).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Mistake;

    fn problems(body: &str) -> Vec<Value> {
        let mut body: Value = serde_json::from_str(body).unwrap();
        body["jobs"].as_array_mut().unwrap().iter_mut().map(|job| job["problem"].take()).collect()
    }

    fn refused(jobs: usize, mistakes: usize) -> Vec<Outcome> {
        let mistake = || Mistake::at(format!("/{}", "~".repeat(5000)), "type", "\u{1}".repeat(5000));
        let error = || ApiError::Invalid((0..mistakes).map(|_| mistake()).collect());
        (0..jobs).map(|_| Err(error())).collect()
    }

    #[test]
    fn refused_jobs_take_a_bounded_number_of_bytes_each() {
        for jobs in [1, 2, 3, 19, 20, 21, 40, 999, 1000] {
            for mistakes in [1, 20] {
                let text = body(&refused(jobs, mistakes), jobs, &"\"".repeat(128));
                assert!(text.len() <= MOST_BYTES + BYTES_A_JOB * jobs, "{jobs} {mistakes}: {}", text.len());
                assert_eq!(problems(&text).len(), jobs);
            }
        }
    }

    #[test]
    fn the_first_problems_are_complete_and_the_others_brief() {
        let outcomes: Vec<Outcome> = (0..100).map(|_| Err(ApiError::QueueFull(5))).collect();
        let problems = problems(&body(&outcomes, 100, "r-1"));
        assert!(problems[..COMPLETE].iter().all(|problem| problem["detail"].is_string()));
        assert_eq!(problems[COMPLETE - 1]["instance"], "/predict/batch#/19");
        let brief = serde_json::json!({"type": "/problems/queue-full", "status": 503, "code": "queue_full"});
        assert!(problems[COMPLETE..].iter().all(|problem| *problem == brief));
    }

    #[test]
    fn the_jobs_of_a_small_batch_share_the_room_for_their_mistakes() {
        let mistake =
            |index| Mistake::at(format!("/data/0/{index}"), "type", "must be a number, not a string");
        let outcomes: Vec<Outcome> =
            (0..5).map(|_| Err(ApiError::Invalid((0..20).map(mistake).collect()))).collect();
        let problems = problems(&body(&outcomes, 5, "r-1"));
        let reported = problems.iter().map(|problem| problem["errors"].as_array().unwrap().len());
        assert!(
            reported.clone().all(|errors| (3..20).contains(&errors)),
            "{:?}",
            reported.collect::<Vec<_>>()
        );
    }
}
