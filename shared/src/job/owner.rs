//! The owner of a job, and who may see the job. An owner is a name. A job may have no owner. Its owner never changes.

/// The jobs that a caller sees and may change. For the caller, all others do not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View<'a> {
    /// Every job.
    All,
    /// The jobs of this owner.
    Owner(&'a str),
    /// The jobs without an owner.
    Unowned,
}

impl<'a> View<'a> {
    /// Whether the caller sees a job of this owner.
    #[must_use]
    pub fn shows(self, owner: Option<&str>) -> bool {
        match self {
            Self::All => true,
            Self::Owner(own) => owner == Some(own),
            Self::Unowned => owner.is_none(),
        }
    }

    /// The view as an argument of the scripts, see `sees` in `lua/found.lua`. No owner is called `*`.
    #[must_use]
    pub fn as_argument(self) -> &'a str {
        match self {
            Self::All => "*",
            Self::Owner(own) => own,
            Self::Unowned => "",
        }
    }
}

/// Whether the text is a valid owner: 1 to 64 letters, digits, `.`, `_`, `-`, `@`.
#[must_use]
pub fn is_owner(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte);
    (1..=64).contains(&text.len()) && text.bytes().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_shows_its_own_jobs_and_no_others() {
        let owners = [None, Some("a"), Some("b")];
        let shown = |view: View<'_>| owners.map(|owner| view.shows(owner));
        assert_eq!(shown(View::All), [true, true, true]);
        assert_eq!(shown(View::Owner("a")), [false, true, false]);
        assert_eq!(shown(View::Unowned), [true, false, false]);
    }

    #[test]
    fn no_owner_is_called_as_a_script_calls_all_or_none() {
        assert!(is_owner("shop-1.eu@example.com"));
        for view in [View::All, View::Unowned] {
            assert!(!is_owner(view.as_argument()));
        }
        assert!(!is_owner("two words") && !is_owner(&"a".repeat(65)));
    }
}
