//! What a request counts against its client's limit: at least one, and more for the work that it causes.

use axum::{
    body::HttpBody as _,
    response::{IntoResponse, Response},
};

use super::rate_limit::{Account, Allowance};
use crate::error::ApiError;

/// This much of each kind of work counts as one request.
const JOBS: u64 = 50;
const ENTRIES: u64 = 1000;
const BYTES: u64 = 256 << 10;

/// The work that a request caused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Work {
    pub(crate) jobs_read: usize,
    pub(crate) entries_scanned: usize,
    pub(crate) bytes_answered: u64,
}

impl Work {
    /// How many additional requests it counts as, rounded down.
    fn cost(self) -> u64 {
        let (jobs, entries) = (self.jobs_read as u64, self.entries_scanned as u64);
        // In fractions with a common denominator.
        let parts = jobs * (ENTRIES / JOBS) * BYTES + entries * BYTES + self.bytes_answered * ENTRIES;
        parts / (ENTRIES * BYTES)
    }
}

/// Where a request is counted, and its additional cost so far.
pub(crate) struct Tab {
    /// `None` when its sender is not limited.
    account: Option<Account>,
    bill: Bill,
}

/// What is known when the handler returns.
#[derive(Clone, Copy, Debug, Default)]
struct Bill {
    work: Work,
    charged: u32,
    /// What is left after the last charge.
    allowance: Option<Allowance>,
}

impl Tab {
    /// That of a request that was admitted.
    pub(crate) fn open(account: Option<Account>) -> Self {
        Self { account, bill: Bill::default() }
    }

    /// Most requests a minute; `None` for any number.
    pub(crate) fn limit(&self) -> Option<u32> {
        self.account.as_ref().map(Account::limit)
    }

    /// Charges so many additional requests, before their work begins.
    pub(crate) fn charge(&mut self, more: u32) -> Result<(), ApiError> {
        let Some(account) = self.account.as_ref().filter(|_| more > 0) else { return Ok(()) };
        let allowance = account.spend_more(more);
        self.bill.allowance = Some(allowance);
        match allowance.excess {
            Some(excess) => Err(excess.into()),
            None => {
                self.bill.charged += more;
                Ok(())
            }
        }
    }

    /// Charges work before it begins.
    pub(crate) fn charge_for(&mut self, work: Work) -> Result<(), ApiError> {
        let most = self.limit().map_or(0, |limit| limit - 1);
        self.charge(u32::try_from(work.cost()).map_or(most, |cost| cost.min(most)))
    }

    /// The answer. The rest of its cost is charged when it is sent.
    pub(crate) fn close(mut self, work: Work, answer: impl IntoResponse) -> Response {
        self.bill.work = work;
        let mut answer = answer.into_response();
        answer.extensions_mut().insert(self.bill);
        answer
    }
}

/// The cost of a streamed answer: each part is charged when it is sent.
pub(crate) struct RunningTab {
    /// `None` when its client is not limited.
    account: Option<Account>,
    bytes: u64,
    charged: u64,
    /// Nothing was sent yet.
    is_first: bool,
}

impl RunningTab {
    /// That of a request that was admitted.
    pub(crate) fn open(account: Option<Account>) -> Self {
        Self { account, bytes: 0, charged: 0, is_first: true }
    }

    /// Charges so many more bytes. `false` if they cost something and the client has nothing left: then they must not be sent.
    /// The first part is always sent, like a whole answer, and later requests wait for it.
    #[must_use]
    pub(crate) fn charge(&mut self, bytes: usize) -> bool {
        self.bytes += bytes as u64;
        let cost = Work { bytes_answered: self.bytes, ..Work::default() }.cost();
        let due = cost - self.charged;
        let is_first = std::mem::take(&mut self.is_first);
        let Some(account) = self.account.as_ref().filter(|_| due > 0) else { return true };
        if !is_first && account.left() == 0 {
            return false;
        }
        self.charged = cost;
        account.owe(u32::try_from(due).map_or(account.limit(), |due| due.min(account.limit())));
        true
    }
}

/// Charges the rest of an answer's cost. Returns what is left, if anything was charged since the request was admitted.
pub(crate) fn settle(account: &Account, answer: &mut Response) -> Option<Allowance> {
    let Bill { mut work, charged, allowance } = answer.extensions_mut().remove().unwrap_or_default();
    work.bytes_answered = answer.body().size_hint().exact().unwrap_or(0);
    let most = account.limit() - 1;
    let cost = u32::try_from(work.cost()).map_or(most, |cost| cost.min(most));
    match cost.saturating_sub(charged) {
        0 => allowance,
        due => Some(account.owe(due)),
    }
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU32, sync::Arc};

    use super::*;
    use crate::edge::rate_limit::KeyLimit;

    fn cost(jobs_read: usize, entries_scanned: usize, bytes_answered: u64) -> u64 {
        Work { jobs_read, entries_scanned, bytes_answered }.cost()
    }

    #[test]
    fn an_answer_that_goes_on_is_charged_until_nothing_is_left() {
        let limit = |most| Account::Key(Arc::new(KeyLimit::new(NonZeroU32::new(most).unwrap())));
        let account = limit(10);
        let mut tab = RunningTab::open(Some(account.clone()));
        let quarter = usize::try_from(BYTES / 4).unwrap();
        assert!((0..3).all(|_| tab.charge(quarter)));
        assert_eq!(account.left(), 10, "not a whole one yet");
        assert!(tab.charge(quarter) && tab.charge(9 * 4 * quarter));
        assert_eq!(account.left(), 0);
        assert!((0..3).all(|_| tab.charge(quarter)), "it costs nothing yet");
        assert!(!tab.charge(quarter));

        // An admitted client gets one part, whatever it costs.
        let account = limit(1);
        assert_eq!((account.spend().excess, account.left()), (None, 0));
        let mut tab = RunningTab::open(Some(account));
        assert!(tab.charge(1 << 30) && !tab.charge(4 * quarter));
        assert!(RunningTab::open(None).charge(usize::MAX / 2000));
    }

    #[test]
    fn work_counts_as_so_many_requests_together() {
        assert_eq!([cost(0, 0, 0), cost(49, 0, 0), cost(0, 999, 0), cost(0, 0, BYTES - 1)], [0; 4]);
        assert_eq!([cost(50, 0, 0), cost(0, 1000, 0), cost(0, 0, BYTES), cost(25, 500, 0)], [1; 4]);
        assert_eq!(cost(1000, 0, 8 << 20), 52);
        assert_eq!(cost(10_000, 10_000, BYTES / 2), 210);
    }
}
