//! Large results. A result is read once and held once, however many answers need it at the same time. Its memory is reserved
//! before it is read.

use std::sync::Arc;

use axum::body::Bytes;
use futures_util::FutureExt as _;
use tepal_shared::{job::JobId, queue::error::StoreError};

use super::single_flight::{Flight, SingleFlight};
use crate::{
    error::ApiError,
    http::{
        answer::held,
        budget::{Budget, Share},
    },
    jobs::store::Store,
};

/// The large results of answers.
pub(crate) struct Results {
    store: Store,
    budget: Arc<Budget>,
    reads: SingleFlight<Read>,
}

type Read = Result<Option<Bytes>, Unread>;

/// Why a result was not read.
#[derive(Clone, Debug)]
pub(crate) enum Unread {
    /// Memory for it is not available at present.
    NoRoom,
    /// Redis failed.
    Store(StoreError),
}

/// A text whose read others can join as long as this is held.
struct Joined {
    text: Bytes,
    _read: Arc<Flight<Read>>,
}

impl Results {
    pub(crate) fn new(store: Store, budget: Arc<Budget>) -> Self {
        Self { store, budget, reads: SingleFlight::default() }
    }

    /// The text of this job's result of so many bytes; `None` if the job is gone.
    pub(crate) async fn text(&self, id: JobId, bytes: usize) -> Read {
        let begin = || read(self.store.clone(), self.budget.share(), id, bytes).boxed();
        let may_succeed = |read: &Flight<Read>| !matches!(read.peek(), Some(Err(_)));
        // The result of a job never changes, so any read of it can be joined.
        let read = self.reads.join(id, may_succeed, begin);
        let text = read.outcome().await?;
        Ok(text.map(|text| Bytes::from_owner(Joined { text, _read: read })))
    }
}

async fn read(store: Store, mut share: Share, id: JobId, bytes: usize) -> Read {
    if !share.grow(bytes) {
        return Err(Unread::NoRoom);
    }
    let Some(text) = store.views.large_result(id).await.map_err(Unread::Store)? else { return Ok(None) };
    if !share.grow(text.len().saturating_sub(bytes)) {
        return Err(Unread::NoRoom);
    }
    Ok(Some(held(in_one_line(text), Arc::new(share))))
}

/// The same JSON without line ends, which would split the data of an event. In JSON they are whitespace.
fn in_one_line(text: String) -> Vec<u8> {
    let mut bytes = text.into_bytes();
    for byte in bytes.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')) {
        *byte = b' ';
    }
    bytes
}

impl Unread {
    /// Whether it can be read later.
    pub(crate) fn is_retryable(&self) -> bool {
        match self {
            Self::NoRoom => true,
            Self::Store(error) => error.is_retryable(),
        }
    }
}

impl From<Unread> for ApiError {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::NoRoom => Self::Overloaded,
            Unread::Store(error) => error.into(),
        }
    }
}

impl AsRef<[u8]> for Joined {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}
