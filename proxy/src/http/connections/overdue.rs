//! How long a connection may wait: for its first request, for another one after an answer, and for the rest of a head.

use std::{
    future::{Future as _, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
};

use tokio::time::{Instant, sleep};

use super::{
    limits::ConnectionLimits,
    slots::{Slot, Wait},
};

/// Returns when the client's time to send a request is over. Poll it each time after the connection, because only the connection
/// changes what it waits for.
pub(super) async fn overdue(slot: Arc<Slot>, limits: ConnectionLimits) {
    // One timer for all waits. It may fire early, because it is not moved with each request.
    let mut alarm = pin!(sleep(limits.header_timeout));
    poll_fn(|context| {
        let Some(due) = due(&slot, &limits) else { return Poll::Pending };
        if alarm.deadline() > due {
            alarm.as_mut().reset(due);
        }
        while alarm.as_mut().poll(context).is_ready() {
            if alarm.deadline() >= due {
                return Poll::Ready(());
            }
            alarm.as_mut().reset(due);
        }
        Poll::Pending
    })
    .await;
}

/// `None` while the connection works on a request.
fn due(slot: &Slot, limits: &ConnectionLimits) -> Option<Instant> {
    let (wait, since) = slot.waits()?;
    let limit = match wait {
        Wait::First | Wait::Head => limits.header_timeout,
        Wait::Next => limits.idle_timeout,
    };
    Some(since + limit)
}
