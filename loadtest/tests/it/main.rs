//! Runs the real binary against a small real server and checks exit codes, numbers and pages.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, a failed unwrap is a failed test")]

use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use server::{Behaviour, Server};

mod server;

/// The results of one run of the binary.
struct Run {
    code: i32,
    report: Value,
    stdout: String,
    stderr: String,
}

impl Run {
    fn number(&self, pointer: &str) -> f64 {
        let value = self.report.pointer(pointer).and_then(Value::as_f64);
        value.unwrap_or_else(|| panic!("no number at {pointer} in {}\n{}", self.stdout, self.stderr))
    }

    fn verdict(&self, term: &str) -> bool {
        let verdicts = self.report["slo"].as_array().unwrap();
        verdicts.iter().find(|verdict| verdict["term"] == term).unwrap()["passed"].as_bool().unwrap()
    }

    /// Whether a note contains `text`. On a busy machine there are other notes before it.
    fn notes(&self, text: &str) -> bool {
        self.report["notes"].as_array().unwrap().iter().any(|note| note.as_str().unwrap().contains(text))
    }
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        let stdout = String::from_utf8(output.stdout).unwrap();
        let report = serde_json::from_str(&stdout).unwrap_or(Value::Null);
        let stderr = String::from_utf8(output.stderr).unwrap();
        Self { code: output.status.code().unwrap(), report, stdout, stderr }
    }
}

fn start(url: &str, line: &str) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tepal-loadtest"));
    command
        .args(line.split_whitespace())
        .args(["--url", url])
        .env_remove("TEPAL_API_KEY")
        .env_remove("TEPAL_URL");
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn run(url: &str, line: &str) -> Run {
    start(url, line).wait_with_output().unwrap().into()
}

/// Runs against `server` with the JSON report on standard output.
fn report(server: &Server, line: &str) -> Run {
    run(&server.url(), &format!("{line} --json -"))
}

/// Sends `signal` to a run that has submitted some jobs, and waits for its report.
fn interrupted(server: &Server, child: Child, signal: &str) -> Run {
    server.wait_until(|seen| seen.submissions >= 20);
    let interrupt = format!("kill -{signal} {}", child.id());
    assert!(Command::new("sh").args(["-c", &interrupt]).status().unwrap().success());
    child.wait_with_output().unwrap().into()
}

fn quick() -> Behaviour {
    Behaviour { job_time: Duration::from_millis(20), honours_wait: true, ..Default::default() }
}

#[test]
fn a_healthy_server_passes() {
    let server = Server::start(quick());
    let run = report(&server, "constant --rate 100 --duration 2s --arrivals uniform --slo errors<1,failed<1");
    assert_eq!(run.code, 0, "{}\n{}", run.stdout, run.stderr);
    assert_eq!(run.number("/summary/submit/intended"), 200.0);
    assert_eq!(run.number("/summary/jobs/completed"), 200.0);
    assert_eq!(run.number("/summary/jobs/verified"), 200.0);
    assert_eq!(run.number("/summary/turnaround/p50_ms").round(), 250.0);
    assert!(run.number("/summary/complete/p50_ms") >= 20.0);
    assert!(run.number("/summary/get/succeeded") > 100.0 && run.number("/summary/health/succeeded") == 8.0);
    assert!(run.stderr.contains("submit") && run.stderr.contains("backlog"), "{}", run.stderr);
}

#[test]
fn a_stall_shows_in_the_latency_of_every_request_that_it_delayed() {
    let stall = Some((100, Duration::from_millis(500)));
    let server = Server::start(Behaviour { stall, ..quick() });
    let run = report(&server, "constant --rate 200 --duration 2s --arrivals uniform --slo submit_p99_ms<400");
    // A closed loop would have one slow request of 400, and its p99 would hide the stall.
    assert_eq!(run.number("/summary/submit/intended"), 400.0);
    assert_eq!(run.number("/summary/submit/succeeded"), 400.0);
    assert!(run.number("/summary/submit/latency/p99_ms") >= 400.0, "{}", run.stdout);
    assert!(run.number("/summary/submit/latency/p90_ms") >= 200.0, "{}", run.stdout);
    assert_eq!((run.code, run.verdict("submit_p99_ms < 400")), (1, false));
}

#[test]
fn requests_beyond_max_outstanding_are_dropped_and_counted() {
    let stall = Some((50, Duration::from_millis(500)));
    let server = Server::start(Behaviour { stall, ..quick() });
    let line = "constant --rate 200 --duration 2s --arrivals uniform --max-outstanding 20 --get-ratio 0 --health-rate 0";
    let run = report(&server, &format!("{line} --slo errors_ratio<0.01"));
    let dropped = run.number("/summary/submit/dropped");
    assert!(dropped >= 40.0, "{}", run.stdout);
    assert_eq!(run.number("/summary/submit/failed"), dropped);
    assert_eq!(run.number("/summary/submit/succeeded"), 400.0 - dropped);
    assert_eq!((run.code, run.report["failures"][0]["kind"].as_str()), (1, Some("dropped")));
}

#[test]
fn a_forgotten_job_is_lost() {
    let server = Server::start(Behaviour { forgets: Some(7), ..quick() });
    let run = report(&server, "constant --rate 100 --duration 1s --get-ratio 0");
    assert_eq!((run.code, run.number("/summary/jobs/lost")), (1, 1.0));
    assert_eq!(run.report["lost_examples"][0], "job-7");
    assert!(!run.verdict("lost < 1") && run.verdict("changed < 1"));
}

#[test]
fn a_job_that_does_not_end_in_time_is_lost() {
    let server = Server::start(Behaviour { hangs: Some(3), ..quick() });
    let run = report(&server, "run --jobs 10 --concurrency 2 --wait 1s --drain-timeout 2s");
    assert_eq!((run.code, run.number("/summary/jobs/unfinished")), (1, 1.0));
    assert_eq!(run.number("/summary/jobs/completed"), 9.0);
    assert!(run.notes("--drain-timeout"), "{}", run.stdout);
}

#[test]
fn a_result_that_changes_is_detected() {
    let server = Server::start(Behaviour { changes: Some(5), ..quick() });
    let run = report(&server, "constant --rate 100 --duration 1s --get-ratio 0");
    assert_eq!((run.code, run.number("/summary/jobs/changed")), (1, 1.0));
    assert_eq!(run.report["changed_examples"][0]["job_id"], "job-5");
    assert!(!run.verdict("changed < 1") && run.verdict("lost < 1"));
}

#[test]
fn a_job_that_expires_during_the_run_is_no_change() {
    let server = Server::start(Behaviour { keeps: Some(Duration::from_secs(3)), ..quick() });
    let run = report(&server, "constant --rate 50 --duration 6s --get-ratio 0");
    assert_eq!((run.code, run.number("/summary/jobs/changed")), (0, 0.0), "{}", run.stdout);
    assert!(run.number("/summary/jobs/verified") > 0.0 && run.number("/summary/jobs/expired") > 0.0);
    assert!(run.notes("had expired"), "{}", run.stdout);
}

#[test]
fn an_id_issued_twice_is_detected() {
    let server =
        Server::start(Behaviour { repeats_id: Some(4), job_time: Duration::from_secs(1), ..quick() });
    let run = report(&server, "constant --rate 100 --duration 500ms --get-ratio 0");
    assert_eq!((run.code, run.number("/summary/jobs/duplicated")), (1, 1.0));
}

#[test]
fn an_id_given_again_after_its_job_has_ended_is_detected() {
    let server = Server::start(Behaviour { repeats_id: Some(4), ..quick() });
    // One job at a time: when the fourth is submitted, the third has ended.
    let run = report(&server, "run --jobs 10 --concurrency 1");
    assert_eq!((run.code, run.number("/summary/jobs/duplicated")), (1, 1.0));
    assert_eq!((run.number("/summary/jobs/completed"), run.number("/summary/jobs/lost")), (9.0, 0.0));
    assert!(!run.verdict("duplicated < 1") && run.verdict("changed < 1"), "{}", run.stdout);
}

#[test]
fn a_read_that_returns_another_jobs_record_is_detected() {
    let server = Server::start(Behaviour { mixes_up: Some((5, 1)), ..quick() });
    let run = report(&server, "run --jobs 200");
    assert_eq!((run.code, run.number("/summary/jobs/mixed_up")), (1, 1.0), "{}", run.stdout);
    assert_eq!(run.report["failures"][0]["kind"], "another job's record");
    // The answer does not end the requested job, which is still followed. One error in so many requests is allowed.
    assert_eq!((run.number("/summary/jobs/completed"), run.number("/summary/jobs/changed")), (200.0, 0.0));
    assert!(!run.verdict("mixed_up < 1") && run.verdict("errors_ratio < 0.01"), "{}", run.stdout);
}

#[test]
fn another_jobs_record_at_the_second_read_is_a_change() {
    let server = Server::start(Behaviour { mixes_up: Some((5, 2)), ..quick() });
    let run = report(&server, "run --jobs 20");
    assert_eq!((run.code, run.number("/summary/jobs/changed")), (1, 1.0), "{}", run.stdout);
    let change = &run.report["changed_examples"][0];
    assert!(change["job_id"] == "job-5" && change["after"].as_str().unwrap().contains("job-4"), "{change}");
}

#[test]
fn failed_jobs_are_counted_and_judged_only_if_asked() {
    let server = Server::start(Behaviour { fails: Some(5), ..quick() });
    let run = report(&server, "run --jobs 20");
    assert_eq!((run.code, run.number("/summary/jobs/failed")), (0, 1.0));
    assert_eq!(
        report(&Server::start(Behaviour { fails: Some(5), ..quick() }), "run --jobs 20 --slo failed<1").code,
        1
    );
}

#[test]
fn a_server_that_ignores_the_wait_is_polled_with_growing_pauses() {
    let job_time = Duration::from_millis(600);
    let server = Server::start(Behaviour { job_time, honours_wait: false, ..Default::default() });
    let run = report(&server, "run --jobs 10 --concurrency 10 --verify-sample 0");
    assert_eq!((run.code, run.number("/summary/jobs/completed")), (0, 10.0));
    // 20 ms, then half as much again each time: nine reads cover 600 ms. One more is the check before the run.
    assert!(server.seen().reads <= 10 * 10 + 1, "{:?}", server.seen());
}

#[test]
fn a_server_that_waits_gets_one_read_a_job() {
    let server = Server::start(Behaviour { job_time: Duration::from_millis(600), ..quick() });
    let run = report(&server, "run --jobs 10 --concurrency 10 --verify-sample 0");
    assert_eq!((run.code, run.number("/summary/jobs/completed")), (0, 10.0));
    assert_eq!(server.seen().reads, 11);
}

#[test]
fn the_closed_loop_keeps_its_concurrency_and_repeats_refused_submissions() {
    let server = Server::start(Behaviour { refuses: 3, ..quick() });
    let run = report(&server, "run --jobs 60 --concurrency 4 --slo errors_ratio<0.1");
    assert_eq!((run.code, run.number("/summary/jobs/completed")), (0, 60.0));
    assert_eq!(run.number("/summary/submit/refused"), 3.0);
    assert!(server.seen().most_unfinished <= 4, "{:?}", server.seen());
    assert!(run.notes("RATE_LIMIT_PER_MINUTE=0"), "{}", run.stdout);
}

#[test]
fn a_ramp_ends_at_the_knee() {
    let server = Server::start(Behaviour { most_per_second: Some(150), ..quick() });
    let slo = "errors_ratio<0.01,submit_p99_ms<5000,knee_rps>=100,knee_rps<150";
    let line = "ramp --from 50 --growth 2 --step-duration 1s --arrivals uniform --get-ratio 0";
    let run = report(&server, &format!("{line} --slo {slo}"));
    assert_eq!((run.code, run.number("/summary/knee_rps")), (0, 100.0), "{}", run.stdout);
    let last = run.report["phases"].as_array().unwrap().last().unwrap();
    assert!(last["violation"].is_string() && last["rate"] == 200.0, "{last}");
}

#[test]
fn steps_are_reported_one_by_one() {
    let server = Server::start(quick());
    let run = report(&server, "steps --steps 40,80 --step-duration 500ms --arrivals uniform");
    assert_eq!(run.code, 0);
    assert_eq!(
        (run.number("/phases/0/submit/intended"), run.number("/phases/1/submit/intended")),
        (20.0, 40.0)
    );
}

#[test]
fn a_closed_output_is_an_error_and_no_panic() {
    let server = Server::start(quick());
    let closed = || std::io::pipe().unwrap().1;
    let mut command = Command::new(env!("CARGO_BIN_EXE_tepal-loadtest"));
    command.args(["constant", "--rate", "20", "--duration", "1s", "--url", &server.url()]);
    let status = command.stdout(closed()).stderr(closed()).status().unwrap();
    assert_eq!(status.code(), Some(2));
}

#[test]
fn ctrl_c_ends_the_sending_and_the_run_still_reports() {
    let server = Server::start(quick());
    let child = start(&server.url(), "soak --rate 100 --duration 1h --json -");
    let run = interrupted(&server, child, "INT");
    // The hour was not over: the objectives may have broken later.
    assert_eq!((run.code, run.report["interrupted"].as_bool()), (1, Some(true)), "{}", run.stderr);
    assert_eq!(
        (run.report["outcome"].as_str(), run.report["passed"].as_bool()),
        (Some("interrupted"), Some(false))
    );
    assert!(run.number("/summary/jobs/completed") >= 20.0);
    assert_eq!(run.number("/summary/jobs/lost"), 0.0);
}

#[test]
fn jobs_that_an_interruption_leaves_behind_are_not_called_lost() {
    let server = Server::start(Behaviour { job_time: Duration::from_secs(3_600), ..quick() });
    let child = start(&server.url(), "soak --rate 100 --duration 1h --json -");
    let run = interrupted(&server, child, "TERM");
    assert_eq!((run.code, run.number("/summary/jobs/lost")), (1, 0.0), "{}", run.stderr);
    assert!(run.number("/summary/jobs/abandoned") >= 20.0);
}

#[test]
fn text_and_page_of_an_interrupted_run_say_that_it_was_not_judged_to_the_end() {
    let server = Server::start(quick());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report.html");
    let line = format!("soak --rate 100 --duration 1h --html {}", file.display());
    let run = interrupted(&server, start(&server.url(), &line), "INT");
    let sentence = "interrupted, not judged to the end";
    assert!(run.stdout.contains(&format!("objectives: {sentence}")), "{}", run.stdout);
    assert!(run.stdout.contains("does not pass") && !run.stdout.contains("all hold"), "{}", run.stdout);
    let page = std::fs::read_to_string(file).unwrap();
    assert!(
        page.contains(sentence) && page.contains("does not pass") && !page.contains("objectives: all hold")
    );
}

#[test]
fn an_objective_that_broke_before_the_interruption_is_called_broken() {
    let server = Server::start(Behaviour { forgets: Some(1), ..quick() });
    let child = start(&server.url(), "soak --rate 100 --duration 1h --json -");
    let run = interrupted(&server, child, "INT");
    assert_eq!((run.code, run.report["outcome"].as_str()), (1, Some("broken")), "{}", run.stdout);
}

#[test]
fn the_preset_judges_the_specification() {
    let server = Server::start(quick());
    let run = report(&server, "preset specification --duration 1s");
    assert!(matches!(run.code, 0 | 1), "{}", run.stderr);
    for term in [
        "submit_p99_ms < 20",
        "get_p99_ms < 10",
        "health_p99_ms < 5",
        "submit_rps > 100",
        "complete_rps >= 20",
    ] {
        run.verdict(term);
    }
    assert!(run.verdict("lost < 1") && run.verdict("errors_ratio < 0.001"));
}

#[test]
fn one_sentence_reports_that_no_proxy_answers() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let run = run(&url, "preset specification");
    assert_eq!((run.code, run.stdout.as_str()), (2, ""));
    let sentence = format!("No Tepal proxy answers at {url}; start one with `make up`");
    assert!(run.stderr.starts_with(&sentence) && run.stderr.lines().count() == 1, "{}", run.stderr);
}

#[test]
fn an_empty_variable_counts_as_absent() {
    let empty = |line: &str| -> Run {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tepal-loadtest"));
        command.args(line.split_whitespace()).env("TEPAL_API_KEY", "").env("TEPAL_URL", "");
        command.output().unwrap().into()
    };
    let other_mistake = empty("constant --rate 0");
    assert_eq!(other_mistake.code, 2);
    assert!(
        other_mistake.stderr.contains("--rate") && !other_mistake.stderr.contains("--url"),
        "{}",
        other_mistake.stderr
    );

    // This server expects an empty key and gets none.
    let server = Server::start(Behaviour { key: Some(""), ..quick() });
    let refused = empty(&format!("run --jobs 1 --url {}", server.url()));
    assert!(refused.code == 2 && refused.stderr.contains("--api-key"), "{}", refused.stderr);
}

#[test]
fn a_missing_key_is_reported_before_the_run_and_a_set_one_is_sent() {
    let server = Server::start(Behaviour { key: Some("let-me-in"), ..quick() });
    let refused = report(&server, "run --jobs 5");
    assert!(refused.code == 2 && refused.stderr.contains("--api-key"), "{}", refused.stderr);
    let run = report(&server, "run --jobs 5 --api-key let-me-in");
    assert_eq!((run.code, run.number("/summary/jobs/completed")), (0, 5.0));
    assert!(!run.stdout.contains("let-me-in") && !run.stderr.contains("let-me-in"));
}

#[test]
fn wrong_objectives_are_explained_before_anything_is_sent() {
    let server = Server::start(quick());
    let run = report(&server, "constant --slo submit_p98_ms<20");
    assert_eq!((run.code, server.seen().submissions), (2, 0));
    assert!(run.stderr.contains("`submit_p98_ms`") && run.stderr.contains("valid names"), "{}", run.stderr);
}

#[test]
fn a_report_that_cannot_be_written_fails_before_the_run() {
    let server = Server::start(quick());
    let run = run(&server.url(), "constant --html /nonexistent/report.html");
    assert_eq!((run.code, server.seen().submissions), (2, 0));
    assert!(run.stderr.contains("cannot write /nonexistent/report.html"), "{}", run.stderr);
}

#[test]
fn the_page_needs_no_other_file_and_agrees_with_the_text() {
    let server = Server::start(quick());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report.html");
    let run = run(&server.url(), &format!("constant --rate 50 --duration 2s --html {}", file.display()));
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stdout.contains("objectives: all hold") && run.stdout.contains("lost < 1"), "{}", run.stdout);
    let page = std::fs::read_to_string(file).unwrap();
    for outside in ["<script", "<link", "src=", "href=", "@import", "url("] {
        assert!(!page.contains(outside), "{outside} is in the page");
    }
    assert!(page.matches("<svg").count() == 7 && page.contains("objectives: all hold"));
    assert!(!page.contains("NaN"));
}
