//! Why a caller is rejected.

use super::scope::Scope;
use crate::error::ApiError;

/// Why a caller is rejected. A client learns only of [`Refusal::InsufficientScope`]; metrics and logs name each reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No key was given, and callers without one may not do this.
    MissingKey,
    /// The header is not a well-formed key, or more than one was given.
    MalformedKey,
    /// No key has this id, or no longer.
    UnknownKey,
    /// The key with this id has another secret.
    WrongSecret,
    /// The key lacks this scope.
    InsufficientScope(Scope),
}

impl Refusal {
    /// One word for metrics and logs.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::MissingKey => "missing_key",
            Self::MalformedKey => "malformed_key",
            Self::UnknownKey => "unknown_key",
            Self::WrongSecret => "wrong_secret",
            Self::InsufficientScope(_) => "insufficient_scope",
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::InsufficientScope(scope) => Self::InsufficientScope(scope.as_str()),
            _ => Self::Unauthorized,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::UNAUTHORIZED_REASONS;

    #[test]
    fn each_reason_is_counted() {
        let all = [
            Refusal::MissingKey,
            Refusal::MalformedKey,
            Refusal::UnknownKey,
            Refusal::WrongSecret,
            Refusal::InsufficientScope(Scope::Read),
        ];
        assert_eq!(all.map(Refusal::reason), UNAUTHORIZED_REASONS);
    }
}
