//! One run from start to report: check the server, send, drain, read again, judge.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hdrhistogram::CreationError;
use tokio::sync::Semaphore;

use crate::api::Api;
use crate::busy::Meter;
use crate::client::Client;
use crate::follow::Follower;
use crate::jobs::Jobs;
use crate::plan::Plan;
use crate::preflight::{self, Unreachable};
use crate::profile::Driver;
use crate::progress;
use crate::recorder::Recorder;
use crate::report::content::{Findings, Report};
use crate::report::report;
use crate::stop::{self, Stop};
use crate::traffic::{Parts, Traffic};
use crate::verify::{self, Verification};

/// How long an interrupted run waits for its jobs, and then again for their second reads.
const SHORT_DRAIN: Duration = Duration::from_secs(3);
/// How long the second reads may take.
const VERIFY_LIMIT: Duration = Duration::from_secs(60);
/// The part of the random numbers that samples use; arrivals use those from 0 on.
const SAMPLE_PART: u64 = u64::MAX;

/// Why a run has no report.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    /// There is no server to test.
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    /// A histogram could not be made.
    #[error("the recorder could not be set up")]
    Recorder(#[from] CreationError),
}

/// The handles that the parts of a run share.
struct Session {
    plan: Plan,
    recorder: Recorder,
    jobs: Jobs,
    traffic: Traffic,
    /// The connections of the followers: long polls must not keep those of the measured requests.
    follow_api: Api,
    stop: Stop,
}

/// Carries out `plan`.
///
/// # Errors
/// [`SessionError::Unreachable`] before anything is sent.
pub(crate) async fn execute(plan: Plan) -> Result<Report, SessionError> {
    let address = preflight::resolve(&plan.target).await?;
    let api = |connections| Api {
        target: plan.target.clone(),
        key: plan.key.clone(),
        timeout: plan.timeout,
        client: Client::new(address, connections),
    };
    let (load_api, follow_api) = (api(plan.connections), api(plan.followers));
    let note = preflight::check(&load_api).await?;
    Session::new(plan, load_api, follow_api)?.run(note).await
}

impl Session {
    fn new(plan: Plan, load_api: Api, follow_api: Api) -> Result<Self, SessionError> {
        let (recorder, stop) = (Recorder::new()?, Stop::new());
        let jobs = Jobs::new(plan.verify_sample, plan.mix.random(SAMPLE_PART));
        let traffic = Traffic::new(Parts {
            api: load_api,
            recorder: recorder.clone(),
            jobs: jobs.clone(),
            body: plan.body.clone(),
            outstanding: Arc::new(Semaphore::new(plan.max_outstanding as usize)),
            max_outstanding: plan.max_outstanding,
            stop: stop.clone(),
            patience: plan.drain_timeout,
        });
        Ok(Self { plan, recorder, jobs, traffic, follow_api, stop })
    }

    async fn run(self, note: Option<String>) -> Result<Report, SessionError> {
        let started_at = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let signals = tokio::spawn(stop::listen_for_signals(self.stop.clone()));
        let progress = tokio::spawn(progress::run(self.recorder.clone(), self.plan.quiet));
        let followers = self.follower().start(self.plan.followers);

        progress::say(&format!("{} at {}", self.plan.title, self.plan.target), self.plan.quiet);

        let meter = Meter::start();
        let knee = self.driver().drive(&self.plan.profile).await?;
        self.recorder.end_sending(meter.share());
        self.drain().await;
        drop(followers);
        self.recorder.leave_jobs(self.jobs.outstanding(), self.stop.is_raised());
        self.recorder.close_window();
        progress.abort();
        let verification = self.verify().await;
        signals.abort();
        progress::finish(self.plan.quiet);

        let interrupted = self.stop.is_raised();
        let lost = self.jobs.lost_examples();
        let findings = Findings { started_at, interrupted, note, knee, lost, changes: verification.examples };
        Ok(report(&self.plan, &self.recorder, findings))
    }

    fn driver(&self) -> Driver {
        Driver {
            traffic: self.traffic.clone(),
            recorder: self.recorder.clone(),
            mix: self.plan.mix,
            slo: self.plan.slo.clone(),
            stop: self.stop.clone(),
        }
    }

    fn follower(&self) -> Follower {
        Follower {
            api: self.follow_api.clone(),
            jobs: self.jobs.clone(),
            recorder: self.recorder.clone(),
            mode: self.plan.follow,
            turn: self.plan.wait,
        }
    }

    /// Waits until every request has its outcome and every job has ended; not for long after an interruption.
    async fn drain(&self) {
        let drained = async {
            self.traffic.quiet().await;
            self.jobs.emptied().await;
        };
        let interrupted = async {
            self.stop.raised().await;
            progress::say(
                "Interrupted: waiting a moment for jobs under way (again to skip)",
                self.plan.quiet,
            );
            tokio::select! {
                () = self.stop.hurried() => {}
                () = tokio::time::sleep(SHORT_DRAIN) => {}
            }
        };
        tokio::select! {
            () = drained => {}
            () = interrupted => {}
            () = tokio::time::sleep(self.plan.drain_timeout) => {}
        }
    }

    async fn verify(&self) -> Verification {
        let limit = if self.stop.is_raised() { SHORT_DRAIN } else { VERIFY_LIMIT };
        let verification = tokio::select! {
            verification = verify::read_again(&self.follow_api, self.jobs.sample(), limit) => verification,
            () = self.stop.hurried() => Verification::default(),
        };
        self.recorder.verify(&verification);
        verification
    }
}
