//! One run: check the server, send, drain, read a sample again, judge.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hdrhistogram::CreationError;
use tokio::sync::Semaphore;

use crate::http::api::Api;
use crate::http::client::Client;
use crate::jobs::follow::Follower;
use crate::jobs::table::Jobs;
use crate::jobs::verify::{self, Verification};
use crate::load::driver::Driver;
use crate::load::traffic::{Parts, Traffic};
use crate::measure::busy::Meter;
use crate::measure::recorder::Recorder;
use crate::plan::Plan;
use crate::report;
use crate::report::content::{Findings, Report, Run};
use crate::stop::{self, Stop};
use preflight::Unreachable;

mod preflight;
mod progress;

/// An interrupted run waits this long for its jobs, and then this long for the second reads.
const SHORT_DRAIN: Duration = Duration::from_secs(3);
/// The longest time for the second reads.
const VERIFY_LIMIT: Duration = Duration::from_secs(60);
/// The random numbers of the samples. Those of the arrivals have the parts from 0 on.
const SAMPLE_PART: u64 = u64::MAX;

/// Why a run has no report.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    /// No proxy can be tested.
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    /// A histogram could not be created.
    #[error("cannot create the histograms")]
    Recorder(#[from] CreationError),
}

/// The handles that the parts of a run share.
struct Session {
    plan: Plan,
    recorder: Recorder,
    jobs: Jobs,
    traffic: Traffic,
    /// The followers have their own connections: long polls must not occupy those of the measured requests.
    follow_api: Api,
    stop: Stop,
}

/// Carries out `plan`.
///
/// # Errors
/// [`SessionError::Unreachable`] before any load is sent.
pub(crate) async fn execute(plan: Plan) -> Result<Report, SessionError> {
    let address = preflight::resolve(&plan.target).await?;
    let api = |connections| Api {
        target: plan.target.clone(),
        key: plan.server.key.clone(),
        timeout: plan.server.timeout,
        client: Client::new(address, connections),
    };
    let (load_api, follow_api) = (api(plan.load.connections), api(plan.jobs.followers));
    let note = preflight::check(&load_api).await?;
    Session::new(plan, load_api, follow_api)?.run(note).await
}

impl Session {
    fn new(plan: Plan, load_api: Api, follow_api: Api) -> Result<Self, SessionError> {
        let (recorder, stop) = (Recorder::new()?, Stop::default());
        let jobs = Jobs::new(plan.jobs.verify_sample, plan.load.random(SAMPLE_PART));
        let traffic = Traffic::new(Parts {
            api: load_api,
            recorder: recorder.clone(),
            jobs: jobs.clone(),
            body: plan.body.clone(),
            outstanding: Arc::new(Semaphore::new(plan.load.max_outstanding as usize)),
            max_outstanding: plan.load.max_outstanding,
            stop: stop.clone(),
            retry_limit: plan.drain_timeout,
        });
        Ok(Self { plan, recorder, jobs, traffic, follow_api, stop })
    }

    async fn run(self, note: Option<String>) -> Result<Report, SessionError> {
        let started_at = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let signals = tokio::spawn(stop::listen_for_signals(self.stop.clone()));
        let progress = tokio::spawn(progress::run(self.recorder.clone(), self.plan.report.quiet));
        let followers = self.follower().start(self.plan.jobs.followers);

        progress::say(&format!("{} at {}", self.plan.title, self.plan.target), self.plan.report.quiet);

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
        progress::finish(self.plan.report.quiet);

        let interrupted = self.stop.is_raised();
        let lost = self.jobs.lost_examples();
        let findings = Findings { started_at, interrupted, note, knee, lost, changes: verification.examples };
        Ok(report::judge(self.planned(), &self.recorder, findings))
    }

    fn planned(&self) -> Run {
        Run {
            title: self.plan.title.clone(),
            url: self.plan.target.to_string(),
            seed: self.plan.load.seed,
            arrivals: self.plan.load.arrivals,
            is_ramp: self.plan.profile.is_ramp(),
            objectives: self.plan.slo.clone(),
        }
    }

    fn driver(&self) -> Driver {
        Driver {
            traffic: self.traffic.clone(),
            recorder: self.recorder.clone(),
            settings: self.plan.load.clone(),
            slo: self.plan.slo.clone(),
            stop: self.stop.clone(),
        }
    }

    fn follower(&self) -> Follower {
        Follower {
            api: self.follow_api.clone(),
            jobs: self.jobs.clone(),
            recorder: self.recorder.clone(),
            mode: self.plan.jobs.follow,
            turn: self.plan.jobs.wait,
        }
    }

    /// Waits until every request has its outcome and every job has ended; after an interruption, only for a short time.
    async fn drain(&self) {
        let drained = async {
            self.traffic.settled().await;
            self.jobs.emptied().await;
        };
        let interrupted = async {
            self.stop.raised().await;
            progress::say(
                "Interrupted: waiting a moment for jobs in flight (press Ctrl-C again to skip)",
                self.plan.report.quiet,
            );
            tokio::select! {
                () = self.stop.raised_twice() => {}
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
            () = self.stop.raised_twice() => Verification::default(),
        };
        self.recorder.verify(verification.counts);
        verification
    }
}
