//! The jobs that a caller sees: those of its owner, and, if its key is limited to models, only those of these models.

use tepal_shared::job::{Job, owner::View};

/// See the module. For the caller, all other jobs do not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Visibility<'a> {
    /// By owner.
    pub(crate) view: View<'a>,
    /// The models; `None` = all.
    pub(crate) models: Option<&'a [String]>,
}

impl Visibility<'_> {
    /// Every job.
    pub(crate) const ALL: Self = Self { view: View::All, models: None };

    /// Whether it is every job.
    pub(crate) fn is_all(self) -> bool {
        self == Self::ALL
    }

    /// Whether the caller sees this job.
    pub(crate) fn shows(self, job: &Job) -> bool {
        self.view.shows(job.owner.as_deref()) && self.shows_model(&job.model)
    }

    /// Whether the caller sees jobs of this model.
    pub(crate) fn shows_model(self, model: &str) -> bool {
        self.models.is_none_or(|models| models.iter().any(|name| name == model))
    }
}
