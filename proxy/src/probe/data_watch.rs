//! Notices that Redis lost jobs: jobs that this proxy acknowledged last, or entries of the log. See [`Loss`].

use std::time::{Duration, SystemTime};

use tepal_shared::queue::{
    error::StoreError,
    loss::{LogMark, LogWatch, Loss},
};
use tokio::time::Instant;

use crate::jobs::store::Store;

/// How long /health reports a loss: as long as results are kept by default, so that a client that asks for a lost job can learn what
/// happened.
const REPORTED_FOR: Duration = Duration::from_secs(86_400);

/// What Redis held at the last read.
#[derive(Debug, Default)]
pub(super) struct DataWatch {
    logs: LogWatch,
    last: Option<(Instant, SystemTime, Loss)>,
}

impl DataWatch {
    /// Compares Redis with the last read. `logs` is the present state of each partition's log. A comparison that fails is
    /// repeated as a whole by the next one.
    pub(super) async fn look(
        &mut self,
        store: &Store,
        logs: &[(u8, LogMark)],
    ) -> Result<Option<Loss>, StoreError> {
        let went_back = self.logs.went_back(logs);
        let jobs = store.intake.look_up_acknowledged(&self.logs.doubtful(logs)).await?;
        self.logs.saw(logs);
        // A failover loses the entries that no replica confirmed, but their submissions were not acknowledged.
        let went_back = went_back.filter(|_| !store.intake.waits_for_replicas());
        let loss = Loss::of(jobs, went_back);
        self.last = loss.map(|loss| (Instant::now(), SystemTime::now(), loss)).or(self.last);
        Ok(loss)
    }

    /// The time and the extent of the last loss, for a day.
    pub(super) fn last(&self, now: Instant) -> Option<(SystemTime, Loss)> {
        let recent = self.last.filter(|(noticed, ..)| now.duration_since(*noticed) < REPORTED_FOR);
        recent.map(|(_, at, loss)| (at, loss))
    }
}

#[cfg(test)]
mod tests {
    use tepal_shared::queue::loss::LookedUp;

    use super::*;

    #[test]
    fn a_loss_is_reported_for_a_day() {
        let noticed = Instant::now();
        let loss = Loss::of(LookedUp { missing: 1, of: 2 }, None);
        let last = loss.map(|loss| (noticed, SystemTime::now(), loss));
        let watch = DataWatch { last, ..DataWatch::default() };
        assert!(watch.last(noticed + REPORTED_FOR - Duration::from_secs(1)).is_some());
        assert_eq!(watch.last(noticed + REPORTED_FOR), None);
    }
}
