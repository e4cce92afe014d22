//! The body of an answer, which knows when it has been sent.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use super::{Place, table::Rest};

/// The body of an answer. When it is sent, or cannot be, the connection waits for its next request.
pub(super) struct Answer {
    pub(super) body: Body,
    pub(super) place: Arc<Place>,
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.place.rest(Rest::Waiting);
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
