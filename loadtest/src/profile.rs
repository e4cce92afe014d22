//! How load is laid over time: phases of constant rate, a ramp that stops at the knee, or a closed loop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use hdrhistogram::CreationError;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::arrivals::{Arrivals, Spacing};
use crate::busy::Meter;
use crate::pacer::{Arrival, Pacer};
use crate::recorder::{Operation, Recorder};
use crate::slo::Slo;
use crate::stop::Stop;
use crate::summary::{PhaseSummary, Summary};
use crate::traffic::Traffic;

/// Arrivals between the pacing thread and the runtime; when it is full, the thread waits and arrivals are late.
const HANDOVER: usize = 4_096;
/// How long the last requests of a ramp's step may take before it is judged.
const SETTLE: Duration = Duration::from_millis(100);
/// A step that has less of its intended submissions accepted is past the knee.
const ENOUGH: f64 = 0.95;
/// Longer than any closed loop.
const ENDLESS: Duration = Duration::from_secs(30 * 86_400);

/// What to do with the rate over time.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Profile {
    /// One phase for each rate, all of the same length.
    Phases { rates: Vec<f64>, length: Duration },
    /// Phases of growing rate until one cannot be held.
    Ramp { from: f64, growth: f64, max_rate: f64, length: Duration },
    /// So many jobs, so many at once.
    Closed { jobs: u64, concurrency: usize },
}

impl Profile {
    /// Whether the rate grows until something breaks.
    pub(crate) fn is_ramp(&self) -> bool {
        matches!(self, Self::Ramp { .. })
    }
}

/// The load beside submissions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Mix {
    pub(crate) spacing: Spacing,
    /// Plain reads of a recent job for each submission.
    pub(crate) get_ratio: f64,
    /// Health probes per second.
    pub(crate) health_rate: f64,
    pub(crate) seed: u64,
}

impl Mix {
    /// A random number generator for one part of the run. The same seed and part always give the same numbers.
    pub(crate) fn random(&self, part: u64) -> Rng {
        Rng::with_seed(self.seed ^ Rng::with_seed(part).u64(..))
    }
}

/// Lays one profile over time.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) traffic: Traffic,
    pub(crate) recorder: Recorder,
    pub(crate) mix: Mix,
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

    /// A step that fails is tried once more, so that one hiccup is not called a knee.
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
            let _ = tokio::time::timeout(SETTLE, self.traffic.quiet()).await;
            let step = self.recorder.phase(phase);
            match self.violation(&step) {
                // An interrupted step is too short to say anything.
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
        if achieved < ENOUGH {
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
            (Operation::Get, self.arrivals(rate * self.mix.get_ratio, length, part + 1)),
            (Operation::Health, self.arrivals(self.mix.health_rate, length, part + 2)),
        ];
        let (started, meter) = (Instant::now(), Meter::start());
        self.pump(Pacer::new(length, streams), phase, &self.stop).await;
        self.recorder.end_phase(phase, started.elapsed(), meter.share());
        Ok(phase)
    }

    fn arrivals(&self, rate: f64, length: Duration, part: u64) -> Arrivals {
        Arrivals::new(self.mix.spacing, rate, length, self.mix.random(part))
    }

    async fn pump(&self, pacer: Pacer, phase: usize, stop: &Stop) {
        let (sender, mut receiver) = mpsc::channel::<Arrival>(HANDOVER);
        let stop = stop.clone();
        let pacing = tokio::task::spawn_blocking(move || pacer.run(&sender, &stop));
        while let Some(arrival) = receiver.recv().await {
            self.traffic.admit(arrival, phase);
        }
        let _ = pacing.await;
    }

    /// The closed loop; health is probed at its own pace meanwhile.
    async fn closed(&self, jobs: u64, concurrency: usize) -> Result<(), CreationError> {
        let phase = self.recorder.begin_phase(0.0)?;
        let probes = vec![(Operation::Health, self.arrivals(self.mix.health_rate, ENDLESS, 0))];
        let probing_ends = Stop::new();
        let (started, meter) = (Instant::now(), Meter::start());
        let submitting = async {
            self.submit_all(jobs, concurrency, phase).await;
            probing_ends.raise();
        };
        tokio::join!(submitting, self.pump(Pacer::new(ENDLESS, probes), phase, &probing_ends));
        self.recorder.end_phase(phase, started.elapsed(), meter.share());
        Ok(())
    }

    /// A seat is taken by a submission and given back when its job has ended.
    async fn submit_all(&self, jobs: u64, concurrency: usize, phase: usize) {
        let seats = Arc::new(Semaphore::new(concurrency));
        let mut submissions = JoinSet::new();
        for _ in 0..jobs {
            let seat = tokio::select! {
                seat = Arc::clone(&seats).acquire_owned() => seat,
                () = self.stop.raised() => break,
            };
            let Ok(seat) = seat else { break };
            let traffic = self.traffic.clone();
            submissions.spawn(async move { traffic.submit_until_accepted(seat, phase).await });
            while submissions.try_join_next().is_some() {}
        }
        submissions.join_all().await;
    }
}
