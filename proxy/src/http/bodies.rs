//! The bodies of requests: the size of one, the memory of all, the time in which one must arrive, and the number of large ones
//! that are parsed at a time.

use std::{sync::Arc, time::Duration};

use axum::body::{Body, HttpBody as _};
use clap::Args;
use http_body_util::BodyExt as _;
use tepal_shared::process::settings::Mistakes;
use tokio::time::timeout;

use super::{
    budget::{Budget, Exceeded, Meter, Share},
    conversions::Conversions,
};
use crate::error::ApiError;

/// Bodies up to this size reserve no memory.
const SMALL: usize = 8 << 10;
/// Larger bodies are parsed away from the threads that answer other requests.
const QUICK: usize = 32 << 10;
/// A large body is stored in blocks of this size.
const BLOCK: usize = 64 << 10;

/// A body of numbers needs at least this many times its size while it is parsed.
const READING_FACTOR: usize = 8;
/// The largest answers need this much.
const LEAST_MEMORY: usize = 8 << 20;

/// Flags and environment variables.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "HTTP")]
pub(crate) struct BodyArgs {
    /// Largest body of a request, bytes
    #[arg(long, env, default_value = "8388608", value_name = "BYTES")]
    max_body_bytes: String,
    /// Memory for all bodies and answers above 8 KiB together, bytes. Requests that exceed it get 503
    #[arg(long, env, default_value = "67108864", value_name = "BYTES")]
    body_memory_bytes: String,
    /// Longest time for a request's body to arrive, ms. A client that reads nothing of its answer for as long is disconnected
    #[arg(long, env, default_value = "10000", value_name = "MS")]
    body_timeout_ms: String,
}

/// The limits of bodies.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// Largest body.
    pub max_bytes: usize,
    /// Memory of all bodies and answers together.
    pub memory_bytes: usize,
    /// Longest time for a whole body to arrive.
    pub timeout: Duration,
}

impl BodyArgs {
    /// The limits.
    pub(crate) fn check(&self, mistakes: &mut Mistakes) -> BodyLimits {
        let max_bytes = mistakes.number("MAX_BODY_BYTES", &self.max_body_bytes, 64..=1 << 30);
        let memory_bytes =
            mistakes.number("BODY_MEMORY_BYTES", &self.body_memory_bytes, LEAST_MEMORY..=1 << 40);
        if memory_bytes < max_bytes * READING_FACTOR {
            let detail = format!(
                "must be at least {READING_FACTOR} times MAX_BODY_BYTES ({max_bytes}), because parsing a body can take that much"
            );
            mistakes.add("BODY_MEMORY_BYTES", detail);
        }
        BodyLimits {
            max_bytes,
            memory_bytes,
            timeout: mistakes.millis("BODY_TIMEOUT_MS", &self.body_timeout_ms, 1..=3_600_000),
        }
    }
}

/// How bodies are read.
#[derive(Debug)]
pub(crate) struct Bodies {
    limits: BodyLimits,
    budget: Arc<Budget>,
    conversions: Conversions,
}

/// A whole body, and the memory reserved for it. A large body is stored in blocks of one size: a single growing buffer would be
/// copied again and again, and would fragment the memory.
#[derive(Debug)]
struct Whole {
    full: Vec<Vec<u8>>,
    /// The last block. The first one grows up to [`BLOCK`].
    last: Vec<u8>,
    share: Share,
}

impl Whole {
    fn len(&self) -> usize {
        self.full.iter().map(Vec::len).sum::<usize>() + self.last.len()
    }

    /// Adds bytes of a body of at most `most` bytes.
    fn add(&mut self, mut bytes: &[u8], most: usize) -> Result<(), ApiError> {
        while !bytes.is_empty() {
            let room = self.make_room(bytes.len(), most)?;
            let (now, later) = bytes.split_at(bytes.len().min(room));
            self.last.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    /// Makes room for some of `more` bytes. Returns for how many. A declared size alone reserves no memory: a body that declares
    /// much and sends little holds little.
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

    /// The bytes in one piece. No memory is reserved for the copy of a large body, because the number of copies is bounded by the
    /// permits.
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
    pub(crate) fn new(limits: BodyLimits, conversions: Conversions) -> Self {
        Self { limits, budget: Budget::new(SMALL, limits.memory_bytes), conversions }
    }

    /// Most bytes of one body.
    pub(crate) fn largest(&self) -> usize {
        self.limits.max_bytes
    }

    /// Passes the whole body to `read`. Returns what `read` returns and the memory reserved for the body: keep it as long as that
    /// value. The parsing of a large body is metered.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        body: Body,
        read: impl FnOnce(&[u8], &mut Meter) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<(T, Option<Share>), ApiError> {
        let whole = self.whole(body).await?;
        if whole.len() <= QUICK {
            let (bytes, share) = whole.join();
            return Ok((read(&bytes, &mut Meter::off())?, Some(share)));
        }
        let convert = move || {
            let (bytes, share) = whole.join();
            let mut meter = Meter::on(share);
            let value = read(&bytes, &mut meter)?;
            Ok((value, meter.finish(bytes.len())))
        };
        // Boxed: it is needed rarely, and each request would hold as much.
        Box::pin(self.conversions.run(convert)).await
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
            // Any other frame is a trailer.
            let Ok(data) = frame.into_data() else { continue };
            if whole.len() + data.len() > most {
                return Err(ApiError::BodyTooLarge(most));
            }
            whole.add(&data, if declared > 0 { declared } else { most })?;
        }
        Ok(whole)
    }
}

impl From<Exceeded> for ApiError {
    fn from(exceeded: Exceeded) -> Self {
        match exceeded {
            Exceeded::Now => Self::Overloaded,
            Exceeded::Always(total) => Self::BodyTakesTooMuch(total),
        }
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
