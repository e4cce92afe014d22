//! The rig: the processes that faults hit, and the records of what they did.

use std::sync::Arc;

use super::versions::Versions;
use super::{Stack, Tally};

/// The processes of a run, the tally of its faults, and the versions that it serves.
#[derive(Clone, Debug)]
pub(super) struct Rig {
    pub(super) stack: Arc<Stack>,
    pub(super) tally: Arc<Tally>,
    pub(super) versions: Arc<Versions>,
}
