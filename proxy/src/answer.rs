//! Large answers. Each holds memory until its client has taken it, so it is paid for from the budget of the bodies.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    body::{Body, Bytes, HttpBody},
    response::{IntoResponse as _, Response},
};
use futures_util::FutureExt as _;
use http_body_util::BodyExt as _;
use hyper::body::{Frame, SizeHint};

use crate::{bodies::Bodies, budget::Share, error::ApiError};

/// The connection gets so much at a time, and what it has got is no longer counted.
const PIECE: usize = 64 << 10;
/// Smaller answers cost nothing.
const SMALL: usize = 8 << 10;

/// A body with the memory that it holds.
struct Paid {
    left: Bytes,
    _share: Share,
}

/// Marks an answer that is paid for already, or that all clients share.
#[derive(Clone, Copy)]
pub(crate) struct IsPaid;

/// The text as a body that holds this share until it is sent.
pub(crate) fn paid(bytes: impl Into<Bytes>, share: Share) -> Body {
    Body::new(Paid { left: bytes.into(), _share: share })
}

/// The answer as it is sent, or a refusal; for requests that change nothing.
pub(crate) fn pay_or_refuse(bodies: &Bodies, answer: Response) -> Response {
    pay(bodies, answer).unwrap_or_else(|| ApiError::Overloaded.into_response())
}

/// The answer, a large one with the memory that it holds; `None` when there is no room for it.
pub(crate) fn pay(bodies: &Bodies, mut answer: Response) -> Option<Response> {
    let size = answer.body().size_hint().exact().and_then(|size| usize::try_from(size).ok());
    let Some(size) = size.filter(|size| *size > SMALL) else { return Some(answer) };
    if answer.extensions_mut().insert(IsPaid).is_some() {
        return Some(answer);
    }
    let mut share = bodies.share();
    if !share.grow(size) {
        return None;
    }
    // A body of known size is there as a whole.
    let whole = std::mem::take(answer.body_mut()).collect().now_or_never();
    if let Some(Ok(whole)) = whole {
        *answer.body_mut() = paid(whole.to_bytes(), share);
    }
    Some(answer)
}

impl HttpBody for Paid {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let size = self.left.len().min(PIECE);
        let piece = self.left.split_to(size);
        Poll::Ready((size > 0).then(|| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.len() as u64)
    }
}
