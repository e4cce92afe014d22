//! The bodies of requests: how much one may hold, how much all together, how long they may take to arrive, and how many
//! large ones are read at a time.

use std::{num::NonZeroUsize, ops::Deref, sync::Arc};

use axum::body::{Body, HttpBody as _};
use http_body_util::BodyExt as _;
use tokio::{sync::Semaphore, time::timeout};

use crate::{
    budget::{Budget, Meter, Share},
    config::BodyLimits,
    error::ApiError,
};

/// Bodies up to this size are always taken.
const SMALL: usize = 8 << 10;
/// Larger ones are read elsewhere than where others are answered.
const QUICK: usize = 32 << 10;
/// How bodies are read.
#[derive(Debug)]
pub(crate) struct Bodies {
    limits: BodyLimits,
    budget: Arc<Budget>,
    /// Who has one reads a large body. JSON that is as costly as it can be takes some 10 ms for each MiB: half of the
    /// processors remain for everybody else.
    turns: Semaphore,
}

/// A whole body, and the memory that it holds.
#[derive(Debug)]
struct Whole {
    bytes: Vec<u8>,
    share: Share,
}

impl Deref for Whole {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Whole {
    /// Makes room for more bytes of a body that will have at most `most`. Nothing is made room for because it is
    /// promised: one that declares much and sends little holds little.
    fn make_room(&mut self, more: usize, most: usize) -> Result<(), ApiError> {
        let (needed, capacity) = (self.bytes.len() + more, self.bytes.capacity());
        if needed > capacity {
            let grown = needed.max((2 * capacity).min(most));
            if !self.share.grow(grown - capacity) {
                return Err(ApiError::Overloaded);
            }
            self.bytes.reserve_exact(grown - self.bytes.len());
        }
        Ok(())
    }
}

impl Bodies {
    pub(crate) fn new(limits: BodyLimits) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self {
            limits,
            budget: Budget::new(SMALL, limits.memory_bytes),
            turns: Semaphore::new((processors / 2).max(1)),
        }
    }

    /// Most bytes of one body.
    pub(crate) fn largest(&self) -> usize {
        self.limits.max_bytes
    }

    /// What `read` makes of the whole body, and the memory that it holds: keep it as long as what was read. A large body
    /// is read with a meter.
    pub(crate) async fn read<T>(
        &self,
        body: Body,
        read: impl FnOnce(&[u8], &mut Meter) -> Result<T, ApiError>,
    ) -> Result<(T, Share), ApiError> {
        let whole = self.whole(body).await?;
        if whole.len() <= QUICK {
            return Ok((read(&whole, &mut Meter::off())?, whole.share));
        }
        // The semaphore is never closed, so there is always a turn.
        let _turn = self.turns.acquire().await.ok();
        let mut meter = Meter::on(self.budget.share());
        let outcome = tokio::task::block_in_place(|| read(&whole, &mut meter))?;
        Ok((outcome, whole.share))
    }

    /// Memory for an answer.
    pub(crate) fn share(&self) -> Share {
        self.budget.share()
    }

    async fn whole(&self, body: Body) -> Result<Whole, ApiError> {
        timeout(self.limits.timeout, self.collect(body)).await.unwrap_or(Err(ApiError::BodyTimeout))
    }

    async fn collect(&self, mut body: Body) -> Result<Whole, ApiError> {
        let most = self.limits.max_bytes;
        let declared = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        if declared > most {
            return Err(ApiError::BodyTooLarge(most));
        }
        let mut whole = Whole { bytes: Vec::new(), share: self.budget.share() };
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| ApiError::BodyIncomplete)?;
            // Anything else is a trailer.
            let Ok(data) = frame.into_data() else { continue };
            if whole.bytes.len() + data.len() > most {
                return Err(ApiError::BodyTooLarge(most));
            }
            whole.make_room(data.len(), if declared > 0 { declared } else { most })?;
            whole.bytes.extend_from_slice(&data);
        }
        Ok(whole)
    }
}
