//! What happens to a server and to its connections during a run.

use std::time::Duration;

use crate::fault_proxy::FaultProxy;
use crate::process::Service;
use crate::wait::eventually;

const WITHIN: Duration = Duration::from_secs(300);
/// How long answers are slow.
const SLOW: Duration = Duration::from_secs(2);

/// Faults, each when another part of the jobs has ended.
pub(super) struct Faults<'a, Ready> {
    pub(super) server: &'a Service,
    pub(super) network: &'a FaultProxy,
    /// Waits until the server answers.
    pub(super) ready: Ready,
}

/// How often each fault hit.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Done {
    pub(super) restarts: usize,
    /// Connections that were cut.
    pub(super) cuts: usize,
    pub(super) slow: usize,
}

impl<Ready: AsyncFn()> Faults<'_, Ready> {
    /// Runs them all. `ended`: how many jobs have ended.
    pub(super) async fn run(&self, ended: impl AsyncFn() -> usize, jobs: usize) -> Done {
        let mut done = Done::default();
        for part in 1..=8 {
            let enough = jobs * part / 10;
            eventually(WITHIN, "jobs to end", async || {
                let ended = ended().await;
                if ended >= enough { Ok(()) } else { Err(ended) }
            })
            .await;
            match part % 4 {
                1 => {
                    self.server.kill9();
                    self.server.restart();
                    (self.ready)().await;
                    done.restarts += 1;
                }
                2 => done.cuts += self.network.cut_all().await,
                3 => {
                    self.network.drip(16, Duration::from_millis(20));
                    tokio::time::sleep(SLOW).await;
                    self.network.pass();
                    done.slow += 1;
                }
                _ => {
                    self.server.sigterm();
                    self.server.wait_exit(WITHIN).await;
                    self.server.restart();
                    (self.ready)().await;
                    done.restarts += 1;
                }
            }
        }
        done
    }
}
