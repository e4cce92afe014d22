//! Reads the jobs that have not ended, as their clients do, so that a result that changes later is noticed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::ledger::Ledger;
use super::stack::Stack;

const INTERVAL: Duration = Duration::from_millis(500);

pub(super) fn start(stack: &Arc<Stack>, ledger: &Arc<Ledger>) -> JoinHandle<()> {
    let (stack, ledger) = (Arc::clone(stack), Arc::clone(ledger));
    tokio::spawn(async move {
        for number in 0.. {
            let open = ledger.open_before(Instant::now());
            let looked = stack.look_up(number, &open).await;
            ledger.book().read(&looked);
            tokio::time::sleep(INTERVAL).await;
        }
    })
}
