//! The signal to stop.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that is cancelled at Ctrl-C or SIGTERM; needs a tokio runtime.
///
/// # Errors
/// When the process may not install signal handlers.
pub fn on_signal() -> io::Result<CancellationToken> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let stop = CancellationToken::new();
    // Cancelled also if the task panics, so that the service then stops.
    let cancel = stop.clone().drop_guard();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        drop(cancel);
    });
    Ok(stop)
}
