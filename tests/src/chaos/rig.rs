//! What every fault needs: the processes that it hits, and the tally that it is counted in.

use std::sync::Arc;

use super::{Stack, Tally};

/// The processes of a run, and the tally of its faults.
#[derive(Clone, Debug)]
pub(super) struct Rig {
    pub(super) stack: Arc<Stack>,
    pub(super) tally: Arc<Tally>,
}
