//! Jobs that pin a version of the model.

use std::sync::Arc;

use tepal_shared::job::{Delivery, input};

use super::Runner;

impl Runner {
    /// Divides jobs among the runners of the versions that their clients pinned. A job for a version that is not served stays here,
    /// where its input does not fit.
    pub fn by_version(self: &Arc<Self>, deliveries: Vec<Delivery>) -> Vec<(Arc<Self>, Vec<Delivery>)> {
        if self.other_versions.is_empty() {
            return vec![(Arc::clone(self), deliveries)];
        }
        let mut divided: Vec<(Arc<Self>, Vec<Delivery>)> = Vec::new();
        for delivery in deliveries {
            let runner = self.of_input(&delivery.input);
            match divided.iter_mut().find(|(other, _)| Arc::ptr_eq(other, runner)) {
                Some((_, deliveries)) => deliveries.push(delivery),
                None => divided.push((Arc::clone(runner), vec![delivery])),
            }
        }
        divided
    }

    fn of_input(self: &Arc<Self>, input: &[u8]) -> &Arc<Self> {
        let pinned = input::pinned(input).ok().and_then(|(version, _)| version);
        let other = pinned
            .and_then(|version| self.other_versions.iter().find(|other| other.model.version == version));
        other.unwrap_or(self)
    }
}
