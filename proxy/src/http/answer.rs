//! Large answers. An answer holds memory until its client has read it. So its memory is reserved from the budget of bodies and
//! answers before it is built.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::ready,
    io::{self, Write},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    body::{Body, Bytes, HttpBody},
    http::{HeaderValue, header::CONTENT_TYPE},
    response::{IntoResponse as _, Response},
};
use futures_util::FutureExt as _;
use http_body_util::BodyExt as _;
use hyper::body::{Frame, SizeHint};

use super::budget::{Budget, Share};
use crate::error::ApiError;

/// The connection gets this many bytes at a time.
pub(crate) const PIECE: usize = 64 << 10;
/// Answers up to this size reserve no memory.
pub(crate) const SMALL: usize = 8 << 10;

/// Bytes with the memory reserved for them.
struct Held<T> {
    bytes: T,
    _share: Arc<Share>,
}

/// A body that is sent piece by piece. Large parts are shared by all answers that contain them.
#[derive(Default)]
pub(crate) struct Pieces(VecDeque<Bytes>);

/// Text of unknown size, in blocks of [`PIECE`]. The memory of each is reserved before it is allocated.
pub(crate) struct Blocks {
    blocks: Vec<Vec<u8>>,
    share: Share,
}

/// Marks an answer whose memory is reserved already, or that all clients share.
#[derive(Clone, Copy)]
pub(crate) struct IsPaid;

/// Bytes that release their memory when no part of them is in use any more.
pub(crate) fn held(bytes: impl AsRef<[u8]> + Send + 'static, share: Arc<Share>) -> Bytes {
    Bytes::from_owner(Held { bytes, _share: share })
}

/// An answer of these parts, whose memory is reserved.
pub(crate) fn paid(parts: impl IntoIterator<Item = Bytes>) -> Response {
    let pieces = parts.into_iter().collect::<Pieces>();
    let is_large = pieces.bytes() > SMALL;
    let mut answer = Response::new(Body::new(pieces));
    if is_large {
        answer.extensions_mut().insert(IsPaid);
    }
    answer
}

/// An answer with a JSON body that is text already.
pub(crate) fn json(body: impl Into<Body>) -> Response {
    as_json(body.into().into_response())
}

/// The answer, declared as JSON.
pub(crate) fn as_json(mut answer: Response) -> Response {
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// Reserves memory for an answer whose size was not known before it was built. Returns an error if there is no memory.
pub(crate) fn pay_or_refuse(memory: &Arc<Budget>, mut answer: Response) -> Response {
    let size = answer.body().size_hint().exact().and_then(|size| usize::try_from(size).ok());
    let Some(size) = size.filter(|size| *size > SMALL) else { return answer };
    if answer.extensions_mut().insert(IsPaid).is_some() {
        return answer;
    }
    let mut share = memory.share();
    if !share.grow(size) {
        return ApiError::Overloaded.into_response();
    }
    // A body of known size is ready as a whole.
    let Some(Ok(whole)) = std::mem::take(answer.body_mut()).collect().now_or_never() else {
        return ApiError::BodyNotReady.into_response();
    };
    let trailers = whole.trailers().cloned();
    let pieces = Pieces::from_iter([held(whole.to_bytes(), Arc::new(share))]);
    *answer.body_mut() = match trailers {
        None => Body::new(pieces),
        Some(trailers) => Body::new(pieces.with_trailers(ready(Some(Ok(trailers))))),
    };
    answer
}

impl Blocks {
    /// An empty text with memory of this budget.
    pub(crate) fn new(budget: &Arc<Budget>) -> Self {
        Self { blocks: Vec::new(), share: budget.share() }
    }

    /// The text, with its memory.
    pub(crate) fn finish(self) -> Vec<Bytes> {
        let share = Arc::new(self.share);
        self.blocks.into_iter().map(|block| held(block, Arc::clone(&share))).collect()
    }

    /// The room in the last block, or in a new one.
    fn room(&mut self) -> io::Result<&mut Vec<u8>> {
        if self.blocks.last().is_none_or(|block| block.len() == PIECE) {
            if !self.share.grow(PIECE) {
                return Err(io::ErrorKind::OutOfMemory.into());
            }
            self.blocks.push(Vec::with_capacity(PIECE));
        }
        self.blocks.last_mut().ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }
}

impl Write for Blocks {
    /// Fails only if no memory is left.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let block = self.room()?;
        let (now, _) = bytes.split_at(bytes.len().min(PIECE - block.len()));
        block.extend_from_slice(now);
        Ok(now.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Pieces {
    /// Bytes that are left to send.
    pub(crate) fn bytes(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    /// The next bytes, at most [`PIECE`].
    pub(crate) fn next_piece(&mut self) -> Option<Bytes> {
        let part = self.0.front_mut()?;
        if part.len() > PIECE { Some(part.split_to(PIECE)) } else { self.0.pop_front() }
    }
}

impl FromIterator<Bytes> for Pieces {
    fn from_iter<T: IntoIterator<Item = Bytes>>(parts: T) -> Self {
        Self(parts.into_iter().filter(|part| !part.is_empty()).collect())
    }
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.next_piece().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes() as u64)
    }
}

impl<T: AsRef<[u8]>> AsRef<[u8]> for Held<T> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A body that declares its size and is never ready.
    struct Late;

    impl HttpBody for Late {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Pending
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(2 * SMALL as u64)
        }
    }

    #[test]
    fn a_body_of_known_size_that_is_not_ready_is_an_internal_error() {
        let answer = pay_or_refuse(&Budget::new(0, 100 << 10), Response::new(Body::new(Late)));
        let error = answer.extensions().get::<Arc<ApiError>>().unwrap();
        assert_eq!(error.status(), 500);
        assert!(error.failure().is_some(), "nothing is logged");
    }

    #[test]
    fn a_text_of_unknown_size_takes_no_more_memory_than_there_is() {
        let budget = Budget::new(0, 3 * PIECE);
        let mut blocks = Blocks::new(&budget);
        let text = vec![b'x'; 2 * PIECE + 1];
        blocks.write_all(&text).unwrap();
        let whole = blocks.finish();
        assert_eq!(whole.concat(), text);
        assert!(!budget.share().grow(1));
        drop(whole);
        let error = Blocks::new(&budget).write_all(&vec![b'x'; 3 * PIECE + 1]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
        assert!(budget.share().grow(3 * PIECE));
    }

    #[test]
    fn the_memory_comes_back_with_the_last_piece_that_somebody_has() {
        let budget = Budget::new(0, 100 << 10);
        let mut share = budget.share();
        assert!(share.grow(100 << 10));
        let part = held(vec![b'x'; 100 << 10], Arc::new(share));
        let mut pieces = Pieces::from_iter([Bytes::from_static(b"<"), part.clone(), Bytes::new()]);
        drop(part);
        assert_eq!(pieces.bytes(), 1 + (100 << 10));
        let sizes: Vec<usize> = std::iter::from_fn(|| pieces.next_piece()).map(|piece| piece.len()).collect();
        assert_eq!(sizes, [1, PIECE, 36 << 10]);
        assert!(budget.share().grow(100 << 10));

        let mut share = budget.share();
        assert!(share.grow(100 << 10));
        let mut pieces = Pieces::from_iter([held(vec![b'x'; 100 << 10], Arc::new(share))]);
        let last = (pieces.next_piece(), pieces.next_piece()).1;
        drop(pieces);
        assert!(!budget.share().grow(1), "the connection has the last piece still");
        drop(last);
        assert!(budget.share().grow(100 << 10));
    }
}
