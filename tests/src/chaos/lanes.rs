//! Injects faults until the time is over: several lanes side by side, each one fault after the other.

use std::time::Instant;

use tokio::time::sleep;

use super::model_faults;
use super::network_faults;
use super::process_faults;
use super::recovery::Kill;
use super::repository_faults;
use super::rig::Rig;
use super::rng::Rng;
use super::{Faults, Options};

/// The lanes of a run.
#[derive(Clone, Debug)]
pub(super) struct Lanes {
    rig: Rig,
    until: Instant,
}

/// Which kinds of faults a lane injects.
#[derive(Clone, Copy, Debug)]
enum Lane {
    Processes,
    Network,
    Model,
    Repository,
}

/// Two processes may be hit at a time, and a connection, a model server, and a folder of models.
const LANES: [Lane; 5] = [Lane::Processes, Lane::Processes, Lane::Network, Lane::Model, Lane::Repository];

impl Lanes {
    pub(super) fn new(rig: Rig, until: Instant) -> Self {
        Self { rig, until }
    }

    /// Runs all lanes to their end; returns the kills of workers, to measure how their jobs went on.
    pub(super) async fn run(self, options: Options) -> Vec<Kill> {
        match options.faults {
            Faults::None => return Vec::new(),
            Faults::RollingRestart => {
                self.rolling_restarts().await;
                return Vec::new();
            }
            Faults::All => {}
        }
        let runs = |lane: &Lane| options.only.is_empty() || matches!(lane, Lane::Model);
        let lanes = (0..).zip(LANES).filter(|(_, lane)| runs(lane)).map(|(number, lane)| {
            let rng = Rng::new(options.seed, u64::MAX - number);
            tokio::spawn(self.clone().lane(lane, rng, options.clone()))
        });
        let mut kills = Vec::new();
        for lane in lanes.collect::<Vec<_>>() {
            kills.extend(lane.await.expect("a lane does not panic"));
        }
        kills
    }

    async fn rolling_restarts(&self) {
        for node in self.rig.stack.workers.iter().cycle() {
            if Instant::now() >= self.until {
                return;
            }
            process_faults::stop_and_start(&self.rig, node).await;
        }
    }

    async fn lane(self, lane: Lane, mut rng: Rng, options: Options) -> Vec<Kill> {
        let mut kills = Vec::new();
        loop {
            let pause = match lane {
                Lane::Processes => rng.millis(200..1_200),
                Lane::Network => rng.millis(200..1_000),
                Lane::Model => rng.millis(300..1_500),
                Lane::Repository => rng.millis(0..2_000),
            };
            if Instant::now() + pause >= self.until {
                return kills;
            }
            sleep(pause).await;
            match lane {
                Lane::Processes => {
                    kills.extend(process_faults::inject(&self.rig, &mut rng, options.lease).await)
                }
                Lane::Network => network_faults::inject(&self.rig, &mut rng).await,
                Lane::Model => model_faults::inject(&self.rig, &mut rng, &options.only).await,
                Lane::Repository => repository_faults::inject(&self.rig, &mut rng).await,
            }
        }
    }
}
