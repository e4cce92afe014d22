//! How long a connection may wait: for its first request, for another one after an answer, and for the rest of a head.

use std::{
    future::{Future as _, poll_fn},
    pin::pin,
    task::Poll,
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::{
    limits::ConnectionLimits,
    slots::{Slot, Wait},
};

/// Returns when the client's time to send a request is over. Poll it each time after the connection, because only the connection
/// changes what it waits for. `due`: when the present wait ends; `first`: the length of the first one.
pub(super) async fn overdue(due: impl Fn() -> Option<Instant>, first: Duration) {
    // One timer for all waits. It may fire early, because it is not moved with each request.
    let mut alarm = pin!(sleep(first));
    poll_fn(|context| {
        let Some(due) = due() else { return Poll::Pending };
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

/// When a connection has waited long enough; `None` while it works on a request.
pub(super) fn due(slot: &Slot, limits: &ConnectionLimits) -> Option<Instant> {
    let (wait, since) = slot.waits()?;
    let limit = match wait {
        Wait::First | Wait::Head => limits.header_timeout,
        Wait::Next => limits.idle_timeout,
    };
    Some(since + limit)
}
