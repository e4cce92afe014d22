//! The form of an API's errors.

/// The form of an API's errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ErrorForm {
    /// RFC 9457.
    Problem,
    /// An object whose member `error` is the text.
    Member,
    /// The status of gRPC.
    Grpc,
}

impl ErrorForm {
    /// That of the API over HTTP to which the path belongs.
    pub(crate) fn of(path: &str) -> Self {
        let first = path.split('/').nth(1);
        if matches!(first, Some("v1" | "v2")) { Self::Member } else { Self::Problem }
    }
}
