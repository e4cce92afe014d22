//! The bodies of requests: how much one may hold, how much all together, how long they may take to arrive, and how many
//! large ones are read at a time.

use std::{num::NonZeroUsize, sync::Arc};

use axum::body::{Body, HttpBody as _};
use http_body_util::BodyExt as _;
use tokio::{sync::Semaphore, time::timeout};

use crate::{
    config::BodyLimits,
    error::ApiError,
    http::budget::{Budget, Meter, Share},
};

/// Bodies up to this size are always taken.
const SMALL: usize = 8 << 10;
/// Larger ones are read elsewhere than where others are answered.
const QUICK: usize = 32 << 10;
/// A large body is kept in blocks of this size.
const BLOCK: usize = 64 << 10;

/// How bodies are read.
#[derive(Debug)]
pub(crate) struct Bodies {
    limits: BodyLimits,
    budget: Arc<Budget>,
    /// Who has one reads a large body. JSON that is as costly as it can be takes some 10 ms for each MiB: half of the
    /// processors remain for everybody else.
    turns: Semaphore,
}

/// A whole body, and the memory that it holds. A large one is kept in blocks of the same size: a single buffer that grows would be
/// copied again and again, and leave holes of all sizes behind.
#[derive(Debug)]
struct Whole {
    full: Vec<Vec<u8>>,
    /// The end; the first block grows up to [`BLOCK`].
    last: Vec<u8>,
    share: Share,
}

impl Whole {
    fn len(&self) -> usize {
        self.full.iter().map(Vec::len).sum::<usize>() + self.last.len()
    }

    /// Adds bytes of a body that has at most `most`.
    fn add(&mut self, mut bytes: &[u8], most: usize) -> Result<(), ApiError> {
        while !bytes.is_empty() {
            let room = self.make_room(bytes.len(), most)?;
            let (now, later) = bytes.split_at(bytes.len().min(room));
            self.last.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    /// Makes room for some of so many more bytes, and says for how many. Nothing is made room for because it is promised: a
    /// body that declares much and sends little holds little.
    fn make_room(&mut self, more: usize, most: usize) -> Result<usize, ApiError> {
        let (used, capacity) = (self.last.len(), self.last.capacity());
        if used < capacity {
            return Ok(capacity - used);
        }
        let left = most.saturating_sub(self.len()).max(more);
        if capacity >= BLOCK {
            let size = BLOCK.min(left);
            self.pay(size)?;
            self.full.push(std::mem::replace(&mut self.last, Vec::with_capacity(size)));
            return Ok(size);
        }
        let grown = (used + more).max(2 * capacity).min(used + left).min(BLOCK);
        self.pay(grown - capacity)?;
        self.last.reserve_exact(grown - used);
        Ok(grown - used)
    }

    fn pay(&mut self, bytes: usize) -> Result<(), ApiError> {
        if self.share.grow(bytes) { Ok(()) } else { Err(ApiError::Overloaded) }
    }

    /// The bytes in one piece. The copy of a large body is not paid for: no more of them are made at a time than are read.
    fn join(self) -> (Vec<u8>, Share) {
        if self.full.is_empty() {
            return (self.last, self.share);
        }
        let mut joined = Vec::with_capacity(self.len());
        for block in self.full.into_iter().chain([self.last]) {
            joined.extend_from_slice(&block);
        }
        (joined, self.share)
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
            let (bytes, share) = whole.join();
            return Ok((read(&bytes, &mut Meter::off())?, share));
        }
        // The semaphore is never closed, so there is always a turn.
        let _turn = self.turns.acquire().await.ok();
        let mut meter = Meter::on(self.budget.share());
        tokio::task::block_in_place(|| {
            let (bytes, share) = whole.join();
            Ok((read(&bytes, &mut meter)?, share))
        })
    }

    /// Memory for an answer.
    pub(crate) fn share(&self) -> Share {
        self.budget.share()
    }

    /// The memory of all bodies and answers.
    pub(crate) fn budget(&self) -> &Arc<Budget> {
        &self.budget
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
        let mut whole = Whole { full: Vec::new(), last: Vec::new(), share: self.budget.share() };
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| ApiError::BodyIncomplete)?;
            // Anything else is a trailer.
            let Ok(data) = frame.into_data() else { continue };
            if whole.len() + data.len() > most {
                return Err(ApiError::BodyTooLarge(most));
            }
            whole.add(&data, if declared > 0 { declared } else { most })?;
        }
        Ok(whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(budget: usize) -> Whole {
        Whole { full: Vec::new(), last: Vec::new(), share: Budget::new(0, budget).share() }
    }

    #[test]
    fn a_body_is_what_was_added_however_it_came() {
        for (size, pieces) in [(10, 1), (100, 7), (BLOCK, 1000), (BLOCK + 1, 8192), (5 * BLOCK + 3, 100_000)]
        {
            let sent: Vec<u8> = (0..size).map(|number| number as u8).collect();
            for most in [size, 8 * size] {
                let mut whole = whole(2 * size + BLOCK);
                for piece in sent.chunks(pieces) {
                    whole.add(piece, most).unwrap();
                }
                assert_eq!(whole.len(), size);
                assert!(whole.full.iter().all(|block| block.len() == BLOCK && block.capacity() == BLOCK));
                assert!(whole.last.capacity() <= BLOCK.min(most), "{size} {most}");
                assert_eq!(whole.join().0, sent);
            }
        }
    }

    #[test]
    fn no_more_is_held_than_was_paid_for() {
        let mut body = whole(2 * BLOCK);
        body.add(&vec![0; 2 * BLOCK], usize::MAX).unwrap();
        assert!(matches!(body.add(&[0], usize::MAX), Err(ApiError::Overloaded)));
        let mut body = whole(100);
        assert!(matches!(body.add(&[0; 101], 101), Err(ApiError::Overloaded)));
        assert_eq!(body.last.capacity(), 0);
    }
}
