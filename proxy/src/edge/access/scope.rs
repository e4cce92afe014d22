//! The scopes of keys.

use std::{fmt, str::FromStr};

/// One scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Scope {
    /// Read and list its own jobs, and the model's metadata
    Read,
    /// Submit, cancel and requeue jobs
    Submit,
    /// All of these, for the jobs of all owners
    Admin,
}

impl Scope {
    pub(crate) const ALL: [Self; 3] = [Self::Read, Self::Submit, Self::Admin];

    /// The name in files and answers.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Submit => "submit",
            Self::Admin => "admin",
        }
    }
}

impl FromStr for Scope {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == word).ok_or(())
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// All scopes of a caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scopes(u8);

impl Scopes {
    /// Whether they include `scope`. `admin` includes every scope.
    pub(crate) fn allow(self, scope: Scope) -> bool {
        self.0 & (Self::from(scope).0 | Self::from(Scope::Admin).0) != 0
    }

    /// Whether there are none.
    pub(crate) fn is_empty(self) -> bool {
        self == Self::default()
    }
}

impl From<Scope> for Scopes {
    fn from(scope: Scope) -> Self {
        Self(1 << scope as u8)
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | Self::from(scope).0))
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = Scope::ALL.into_iter().filter(|scope| self.0 & Self::from(*scope).0 != 0);
        f.write_str(&held.map(Scope::as_str).collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_allows_itself_and_admin_allows_everything() {
        let allowed = |scopes: &[Scope]| {
            let scopes: Scopes = scopes.iter().copied().collect();
            Scope::ALL.map(|scope| scopes.allow(scope))
        };
        assert_eq!(allowed(&[]), [false, false, false]);
        assert_eq!(allowed(&[Scope::Read]), [true, false, false]);
        assert_eq!(allowed(&[Scope::Submit]), [false, true, false]);
        assert_eq!(allowed(&[Scope::Read, Scope::Submit]), [true, true, false]);
        assert_eq!(allowed(&[Scope::Admin]), [true, true, true]);
    }
}
