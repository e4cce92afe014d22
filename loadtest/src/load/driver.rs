//! Carries out a profile: phases of constant rate, a ramp that stops at the knee, or a closed loop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::CreationError;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::arrivals::Arrivals;
use super::pacer::{Arrival, Pacer};
use super::profile::Profile;
use super::settings::LoadSettings;
use super::traffic::Traffic;
use crate::measure::busy::Meter;
use crate::measure::recorder::Recorder;
use crate::measure::summary::{PhaseSummary, Summary};
use crate::measure::totals::Operation;
use crate::slo::Slo;
use crate::stop::Stop;

/// Capacity of the channel from the pacing thread to the runtime. When it is full, the thread waits and arrivals are late.
const ARRIVAL_CAPACITY: usize = 4_096;
/// How long the last requests of a ramp's step may take before the step is judged.
const SETTLE: Duration = Duration::from_millis(100);
/// The knee is passed when a smaller share of the intended submissions is accepted.
const LEAST_ACCEPTED: f64 = 0.95;
/// Longer than any closed loop.
const ENDLESS: Duration = Duration::from_secs(30 * 86_400);

/// Sends the load of one run.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) traffic: Traffic,
    pub(crate) recorder: Recorder,
    pub(crate) settings: LoadSettings,
    pub(crate) slo: Slo,
    pub(crate) stop: Stop,
}

impl Driver {
    /// Sends everything that `profile` asks for; returns the step that is a ramp's knee.
    ///
    /// # Errors
    /// As [`Recorder::begin_phase`].
    pub(crate) async fn drive(&self, profile: &Profile) -> Result<Option<PhaseSummary>, CreationError> {
        match profile {
            Profile::Phases { rates, length } => self.phases(rates, *length).await.map(|()| None),
            Profile::Ramp { from, growth, max_rate, length } => {
                self.ramp(*from, *growth, *max_rate, *length).await
            }
            Profile::Closed { jobs, concurrency } => self.closed(*jobs, *concurrency).await.map(|()| None),
        }
    }

    async fn phases(&self, rates: &[f64], length: Duration) -> Result<(), CreationError> {
        for rate in rates {
            if !self.stop.is_raised() {
                self.phase(*rate, length).await?;
            }
        }
        Ok(())
    }

    /// A step that fails is repeated once, so that one hiccup does not count as the knee.
    async fn ramp(
        &self,
        from: f64,
        growth: f64,
        max_rate: f64,
        length: Duration,
    ) -> Result<Option<PhaseSummary>, CreationError> {
        let (mut rate, mut knee, mut tries) = (from, None, 0);
        while rate <= max_rate && tries < 2 && !self.stop.is_raised() {
            let phase = self.phase(rate, length).await?;
            let _ = tokio::time::timeout(SETTLE, self.traffic.settled()).await;
            let step = self.recorder.phase(phase);
            match self.violation(&step) {
                // An interrupted step is too short to judge.
                _ if self.stop.is_raised() => {}
                Some(reason) => {
                    self.recorder.violate_phase(phase, reason);
                    tries += 1;
                }
                None => (rate, knee, tries) = (rate * growth, Some(step), 0),
            }
        }
        Ok(knee)
    }

    fn violation(&self, step: &PhaseSummary) -> Option<String> {
        let achieved = step.submit.achieved_ratio().unwrap_or(1.0);
        if achieved < LEAST_ACCEPTED {
            return Some(format!(
                "only {:.1} % of the intended submissions were accepted in time",
                achieved * 100.0
            ));
        }
        self.slo.violated_by_step(&Summary::default().seen_in(step))
    }

    /// One phase of constant rate, with reads and probes.
    async fn phase(&self, rate: f64, length: Duration) -> Result<usize, CreationError> {
        let phase = self.recorder.begin_phase(rate)?;
        let part = phase as u64 * 3;
        let streams = vec![
            (Operation::Submit, self.arrivals(rate, length, part)),
            (Operation::Get, self.arrivals(rate * self.settings.get_ratio, length, part + 1)),
            (Operation::Health, self.arrivals(self.settings.health_rate, length, part + 2)),
        ];
        let (started, meter) = (Instant::now(), Meter::start());
        self.pump(Pacer::new(length, streams), phase, &self.stop).await;
        self.recorder.end_phase(phase, started.elapsed(), meter.share());
        Ok(phase)
    }

    fn arrivals(&self, rate: f64, length: Duration, part: u64) -> Arrivals {
        Arrivals::new(self.settings.arrivals, rate, length, self.settings.random(part))
    }

    async fn pump(&self, pacer: Pacer, phase: usize, stop: &Stop) {
        let (sender, mut receiver) = mpsc::channel::<Arrival>(ARRIVAL_CAPACITY);
        let stop = stop.clone();
        let pacing = tokio::task::spawn_blocking(move || pacer.run(&sender, &stop));
        while let Some(arrival) = receiver.recv().await {
            self.traffic.dispatch(arrival, phase);
        }
        let _ = pacing.await;
    }

    /// The closed loop. Meanwhile, health is probed at its own rate.
    async fn closed(&self, jobs: u64, concurrency: usize) -> Result<(), CreationError> {
        let phase = self.recorder.begin_phase(0.0)?;
        let probes = vec![(Operation::Health, self.arrivals(self.settings.health_rate, ENDLESS, 0))];
        let probing_ends = Stop::default();
        let (started, meter) = (Instant::now(), Meter::start());
        let submitting = async {
            self.submit_all(jobs, concurrency, phase).await;
            probing_ends.raise();
        };
        tokio::join!(submitting, self.pump(Pacer::new(ENDLESS, probes), phase, &probing_ends));
        self.recorder.end_phase(phase, started.elapsed(), meter.share());
        Ok(())
    }

    /// A submission takes a permit and returns it when its job has ended.
    async fn submit_all(&self, jobs: u64, concurrency: usize, phase: usize) {
        let permits = Arc::new(Semaphore::new(concurrency));
        let mut submissions = JoinSet::new();
        for _ in 0..jobs {
            let permit = tokio::select! {
                permit = Arc::clone(&permits).acquire_owned() => permit,
                () = self.stop.raised() => break,
            };
            let Ok(permit) = permit else { break };
            let traffic = self.traffic.clone();
            submissions.spawn(async move { traffic.submit_until_accepted(permit, phase).await });
            while submissions.try_join_next().is_some() {}
        }
        submissions.join_all().await;
    }
}
