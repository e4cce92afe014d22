//! The jobs that have not ended, for autoscalers. A partition that cannot be read counts with what was read of it last: it must not
//! look empty, or an autoscaler would stop workers while jobs wait.

use std::collections::BTreeMap;

use tepal_shared::job::ModelName;

use super::queues::Queues;

/// What was read last of each partition and model.
#[derive(Debug, Default)]
pub(super) struct Outstanding {
    counted: BTreeMap<(u8, ModelName), u64>,
}

impl Outstanding {
    /// The partitions were read, as far as they can be reached.
    pub(super) fn saw(&mut self, queues: &Queues) {
        self.counted.retain(|(partition, _), _| queues.unreachable.contains(partition));
        self.counted.extend(queues.depths.counted.iter().map(|(place, count)| (*place, *count)));
    }

    /// Of one model.
    pub(super) fn of(&self, model: ModelName) -> u64 {
        self.counted.iter().filter(|((_, of), _)| *of == model).map(|(_, count)| count).sum()
    }

    /// Of all models.
    pub(super) fn all(&self) -> u64 {
        self.counted.values().sum()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn read(counted: &[(u8, &str, u64)], unreachable: &[u8]) -> Queues {
        let mut queues = Queues { unreachable: unreachable.to_vec(), ..Queues::default() };
        for (partition, model, count) in counted {
            queues.depths.counted.insert((*partition, model.parse().unwrap()), *count);
        }
        queues
    }

    fn seen(outstanding: &Outstanding) -> (u64, u64, u64) {
        let of = |model: &str| outstanding.of(model.parse().unwrap());
        (outstanding.all(), of("a"), of("b"))
    }

    #[test]
    fn a_partition_that_cannot_be_read_counts_as_before() {
        let mut outstanding = Outstanding::default();
        assert_eq!(seen(&outstanding), (0, 0, 0));
        outstanding.saw(&read(&[(0, "a", 1), (0, "b", 2), (1, "a", 4)], &[]));
        assert_eq!(seen(&outstanding), (7, 5, 2));
        outstanding.saw(&read(&[(0, "a", 0), (0, "b", 0)], &[1]));
        assert_eq!(seen(&outstanding), (4, 4, 0));
        outstanding.saw(&read(&[(0, "a", 0), (0, "b", 0), (1, "a", 3)], &[]));
        assert_eq!(seen(&outstanding), (3, 3, 0));
    }

    #[test]
    fn a_removed_model_does_not_count() {
        let mut outstanding = Outstanding::default();
        outstanding.saw(&read(&[(0, "a", 1), (0, "b", 2)], &[]));
        outstanding.saw(&read(&[(0, "a", 1)], &[]));
        assert_eq!(seen(&outstanding), (1, 1, 0));
    }
}
