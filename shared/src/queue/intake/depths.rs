//! Limits of the models, and how many jobs each had at the last count. A submission counts the jobs of its own model exactly, and those
//! of other models as of the last count.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::job::ModelName;

/// Limits and lengths of the models' queues.
#[derive(Clone, Debug, Default)]
pub struct Depths {
    /// Largest number of outstanding jobs of a model in a partition. A model without a limit is missing.
    pub limits: HashMap<ModelName, u64>,
    /// Outstanding jobs of each model in each partition.
    pub counted: HashMap<(u8, ModelName), u64>,
}

/// The last count. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct SharedDepths(Arc<Mutex<Depths>>);

/// What limits the submissions of a model in a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Room {
    /// Outstanding jobs of other models.
    pub(super) others: u64,
    /// Largest number of outstanding jobs of the model; 0 = no limit.
    pub(super) most_of_model: u64,
}

impl SharedDepths {
    pub(super) fn set(&self, depths: Depths) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = depths;
    }

    pub(super) fn room(&self, partition: u8, model: ModelName) -> Room {
        let depths = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_other = |(of, name): &(u8, ModelName)| *of == partition && *name != model;
        let others = depths.counted.iter().filter(|(of, _)| is_other(of)).map(|(_, count)| count).sum();
        Room { others, most_of_model: depths.limits.get(&model).copied().unwrap_or_default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_models_of_the_partition_count() {
        let [a, b, c] = ["a", "b", "c"].map(|name| name.parse::<ModelName>().unwrap());
        let shared = SharedDepths::default();
        assert_eq!(shared.room(0, a), Room::default());
        let counted = [((0, a), 1), ((0, b), 2), ((0, c), 4), ((1, b), 8)].into();
        shared.set(Depths { limits: [(a, 9)].into(), counted });
        assert_eq!(shared.room(0, a), Room { others: 6, most_of_model: 9 });
        assert_eq!(shared.room(1, a), Room { others: 8, most_of_model: 9 });
        assert_eq!(shared.room(1, b), Room::default());
    }
}
