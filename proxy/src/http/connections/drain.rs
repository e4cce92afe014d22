//! Bodies that are not read because the answer does not depend on them, as when a request is refused. A connection that
//! is closed with unread data resets, and a client that still sends might never see its answer: so a body is read on
//! for a moment, and thrown away, before the answer is sent. Meanwhile the connection may lose its place.

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

use super::slots::Place;

const DISCARD_FOR: Duration = Duration::from_secs(1);
/// So many times as much as the largest body that is taken.
const DISCARD_FACTOR: usize = 8;
/// Smaller bodies are sent in one go; what has come of them is read on by the HTTP library.
const SMALL: u64 = 8 << 10;

/// A body on loan. When it is dropped, what is left of it goes back.
pub(super) struct Lent {
    body: Option<Incoming>,
    back: Option<oneshot::Sender<Incoming>>,
}

/// Where what is left of a body comes back to.
pub(super) struct Unread(oneshot::Receiver<Incoming>);

/// The request for who answers it, and where a large body comes back to. A client that waits for a go-ahead has sent
/// nothing yet.
pub(super) fn lend(request: Request<Incoming>) -> (Request<Lent>, Option<Unread>) {
    let is_lent = request.body().size_hint().upper().is_none_or(|size| size > SMALL)
        && !request.headers().contains_key(EXPECT);
    let (back, unread) = is_lent.then(oneshot::channel).unzip();
    (request.map(|body| Lent { body: Some(body), back }), unread.map(Unread))
}

impl Unread {
    /// Waits for the answer, and reads on what `answering` leaves of the body as soon as it is left, so that a client that goes
    /// away while it waits is noticed; what is beyond `largest` several times over stays unread. One who was too slow is not
    /// waited for again. When the client's address has too many bodies discarded already, the connection is closed instead.
    pub(super) async fn discard_beside(
        mut self,
        answering: impl Future<Output = Result<Response, Infallible>>,
        place: &Arc<Place>,
        largest: usize,
    ) -> Result<Response, Infallible> {
        let mut answering = pin!(answering);
        let (answer, left) = tokio::select! {
            biased;
            left = &mut self.0 => (None, left.ok()),
            Ok(answer) = &mut answering => (Some(answer), self.0.try_recv().ok()),
        };
        let Some(left) = left.and_then(unended) else { return or_wait(answer, answering).await };
        let Some(draining) = place.drain() else {
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
    // Whether it ended in time does not matter: the answer is the same.
    let _ = timeout(DISCARD_FOR, reading).await;
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let (Some(body), Some(back)) = (self.body.take(), self.back.take()) {
            // Nobody wants it when the connection is gone.
            let _ = back.send(body);
        }
    }
}

impl HttpBody for Lent {
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
