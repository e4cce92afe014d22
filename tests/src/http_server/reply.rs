//! What the endpoint does with a request.

/// A reply, right or broken.
#[derive(Clone, Debug, Default)]
pub enum Reply {
    /// 200 with the body of the request, and its content type.
    #[default]
    Echo,
    /// Any answer.
    Answer {
        /// Its status.
        status: u16,
        /// Its headers, beside the length of the body.
        headers: Vec<(String, String)>,
        /// Its body.
        body: Vec<u8>,
    },
    /// 200 with JSON in chunks, without a declared length. Without the last chunk, it closes the connection.
    Chunks {
        /// The chunks.
        chunks: Vec<Vec<u8>>,
        /// Whether the last chunk follows.
        is_whole: bool,
    },
    /// Promises a body of this many bytes more than it sends, and closes the connection.
    Cut(usize),
    /// Promises a body, sends half of it, and nothing more.
    Stall,
    /// Closes the connection without an answer.
    Close,
    /// Does not answer.
    Hang,
    /// Sends bytes that are no HTTP.
    Noise,
}

impl Reply {
    /// 200 with JSON.
    #[must_use]
    pub fn json(text: impl Into<String>) -> Self {
        Self::bytes("application/json", text.into())
    }

    /// 200 with this body.
    #[must_use]
    pub fn bytes(content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        let headers = vec![("content-type".to_owned(), content_type.to_owned())];
        Self::Answer { status: 200, headers, body: body.into() }
    }

    /// This status, without a body.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self::Answer { status, headers: Vec::new(), body: Vec::new() }
    }

    /// The same with a header more.
    #[must_use]
    pub fn with(self, name: &str, value: &str) -> Self {
        match self {
            Self::Answer { status, mut headers, body } => {
                headers.push((name.to_owned(), value.to_owned()));
                Self::Answer { status, headers, body }
            }
            other => other,
        }
    }

    /// The same with this body.
    #[must_use]
    pub fn saying(self, body: &str) -> Self {
        match self {
            Self::Answer { status, headers, .. } => Self::Answer { status, headers, body: body.into() },
            other => other,
        }
    }
}
