//! Drains bodies that a handler did not read to their end, for example because it rejected the request. A connection that is
//! closed with unread data is reset, and a client that still sends might never see its answer. So the proxy reads and discards
//! the rest of the body for a moment before it sends the answer. Meanwhile the connection may lose its slot.

use std::{
    convert::Infallible,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::Bytes,
    extract::Request,
    http::{
        HeaderValue, StatusCode,
        header::{CONNECTION, EXPECT},
    },
    response::Response,
};
use futures_util::FutureExt as _;
use http_body_util::BodyExt as _;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::{sync::oneshot, time::timeout};

use super::slots::Slot;

const DISCARD_FOR: Duration = Duration::from_secs(1);
/// At most this many times the size of the largest valid body is discarded.
const DISCARD_FACTOR: usize = 8;
/// Smaller bodies arrive at once, and the HTTP library reads the rest of them itself.
const SMALL: u64 = 8 << 10;

/// A body whose unread rest can be drained. When it is dropped, the rest goes to its [`Rest`].
pub(super) struct Drainable {
    body: Option<Incoming>,
    back: Option<oneshot::Sender<Incoming>>,
}

/// The unread rest of a body, once the handler has dropped the body.
pub(super) struct Rest(oneshot::Receiver<Incoming>);

/// The request for its handler, and the rest of its body if the body is large. A client that waits for `100 Continue` has not
/// sent anything yet.
pub(super) fn drainable(request: Request<Incoming>) -> (Request<Drainable>, Option<Rest>) {
    let is_large = request.body().size_hint().upper().is_none_or(|size| size > SMALL)
        && !request.headers().contains_key(EXPECT);
    let (back, rest) = is_large.then(oneshot::channel).unzip();
    (request.map(|body| Drainable { body: Some(body), back }), rest.map(Rest))
}

impl Rest {
    /// Waits for the answer. As soon as the handler has dropped the body, reads and discards the rest, up to several times
    /// `largest`; so a client that disconnects while it waits for its answer is noticed. A client that was too slow with its
    /// body gets no more time. If too many bodies of the client's address are drained already, the connection is closed
    /// instead.
    pub(super) async fn discard_beside(
        mut self,
        answering: impl Future<Output = Result<Response, Infallible>>,
        slot: &Arc<Slot>,
        largest: usize,
    ) -> Result<Response, Infallible> {
        let mut answering = pin!(answering);
        let (answer, left) = tokio::select! {
            biased;
            left = &mut self.0 => (None, left.ok()),
            Ok(answer) = &mut answering => (Some(answer), self.0.try_recv().ok()),
        };
        let Some(left) = left.and_then(unended) else { return or_wait(answer, answering).await };
        let Some(draining) = slot.drain() else {
            drop(left);
            return or_wait(answer, answering).await.map(closing);
        };
        let mut discarding = pin!(discard(left, largest));
        let answer = match answer {
            Some(answer) => answer,
            None => tokio::select! {
                biased;
                Ok(answer) = &mut answering => answer,
                () = &mut discarding => {
                    drop(draining);
                    return answering.await;
                }
            },
        };
        if is_patient(&answer) {
            draining.answered();
            discarding.await;
        }
        Ok(answer)
    }
}

async fn or_wait(
    answer: Option<Response>,
    answering: impl Future<Output = Result<Response, Infallible>>,
) -> Result<Response, Infallible> {
    match answer {
        Some(answer) => Ok(answer),
        None => answering.await,
    }
}

/// The body, unless it is known to have ended.
fn unended(mut body: Incoming) -> Option<Incoming> {
    match body.frame().now_or_never() {
        Some(None | Some(Err(_))) => None,
        Some(Some(Ok(_))) | None => Some(body),
    }
}

/// The answer, after which the connection is closed.
fn closing(mut answer: Response) -> Response {
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

fn is_patient(answer: &Response) -> bool {
    answer.status() != StatusCode::REQUEST_TIMEOUT
}

async fn discard(mut body: Incoming, largest: usize) {
    let mut most = largest.saturating_mul(DISCARD_FACTOR);
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            most = most.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if most == 0 {
                return;
            }
        }
    };
    // The answer is the same whether it ended in time or not.
    let _ = timeout(DISCARD_FOR, reading).await;
}

impl Drop for Drainable {
    fn drop(&mut self) {
        if let (Some(body), Some(back)) = (self.body.take(), self.back.take()) {
            // The receiver is gone when the connection is closed.
            let _ = back.send(body);
        }
    }
}

impl HttpBody for Drainable {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.body.as_mut().map_or(Poll::Ready(None), |body| Pin::new(body).poll_frame(context))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}
