//! The rig: the processes that faults hit, and the tally that counts them.

use std::sync::Arc;

use super::{Stack, Tally};

/// The processes of a run, and the tally of its faults.
#[derive(Clone, Debug)]
pub(super) struct Rig {
    pub(super) stack: Arc<Stack>,
    pub(super) tally: Arc<Tally>,
}
