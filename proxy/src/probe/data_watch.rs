//! Notices that Redis lost its data: it answers, but with another data set than before.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

/// How long /health tells of a loss: as long as results are kept by default, so that whoever asks for a lost job can
/// learn what became of it.
const TOLD_FOR: Duration = Duration::from_secs(86_400);

/// The data set of each partition as it was seen last.
#[derive(Debug, Default)]
pub(super) struct DataWatch {
    epochs: HashMap<u8, String>,
    lost: Option<(Instant, SystemTime)>,
}

impl DataWatch {
    /// Takes a look at some partitions' data sets; whether one is not the same as before.
    pub(super) fn saw(&mut self, epochs: Vec<(u8, String)>, now: Instant) -> bool {
        let mut is_lost = false;
        for (partition, epoch) in epochs {
            let before = self.epochs.insert(partition, epoch.clone());
            is_lost |= before.is_some_and(|before| before != epoch);
        }
        if is_lost {
            self.lost = Some((now, SystemTime::now()));
        }
        is_lost
    }

    /// When the last loss was noticed, if it is still worth telling.
    pub(super) fn lost_at(&self, now: Instant) -> Option<SystemTime> {
        self.lost.filter(|(noticed, _)| now.duration_since(*noticed) < TOLD_FOR).map(|(_, at)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epochs(names: [&str; 2]) -> Vec<(u8, String)> {
        names.into_iter().zip(0..).map(|(name, partition)| (partition, name.to_owned())).collect()
    }

    #[test]
    fn another_data_set_is_a_loss_and_a_new_partition_is_none() {
        let (mut watch, now) = (DataWatch::default(), Instant::now());
        assert!(!watch.saw(vec![(0, "a".to_owned())], now));
        assert!(!watch.saw(epochs(["a", "b"]), now));
        assert!(!watch.saw(Vec::new(), now));
        assert_eq!(watch.lost_at(now), None);

        assert!(watch.saw(epochs(["a", "c"]), now));
        assert!(watch.lost_at(now).is_some());
        assert!(!watch.saw(epochs(["a", "c"]), now), "told once");
    }

    #[test]
    fn a_loss_is_told_for_a_day() {
        let (mut watch, now) = (DataWatch::default(), Instant::now());
        watch.saw(epochs(["a", "b"]), now);
        watch.saw(epochs(["c", "d"]), now);
        assert!(watch.lost_at(now + TOLD_FOR - Duration::from_secs(1)).is_some());
        assert_eq!(watch.lost_at(now + TOLD_FOR), None);
    }
}
