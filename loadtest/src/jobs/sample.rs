//! A sample of the ended jobs, to compare with a second read.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use hyper::body::Bytes;

/// `max-age` has whole seconds, and the service measures it with another clock.
const INACCURACY: Duration = Duration::from_secs(2);

/// A job with the first ended record that was read.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    pub(crate) id: Arc<str>,
    pub(crate) body: Bytes,
    /// The service promises to keep the job until then; `None` if it promises nothing.
    pub(crate) kept_until: Option<Instant>,
}

impl Ended {
    /// Whether the service may have deleted the job by now.
    pub(crate) fn may_have_expired(&self) -> bool {
        self.kept_until.is_some_and(|until| Instant::now() >= until)
    }
}

/// A uniform sample of a stream of unknown length (Vitter's algorithm R).
#[derive(Debug)]
pub(super) struct Sample {
    size: usize,
    offered: usize,
    kept: Vec<Ended>,
}

impl Sample {
    /// An empty sample of at most `size` jobs.
    pub(super) fn new(size: usize) -> Self {
        Self { size, offered: 0, kept: Vec::new() }
    }

    /// Keeps this job or not, with the right probability.
    pub(super) fn offer(&mut self, id: &Arc<str>, body: &Bytes, max_age: Option<Duration>, rng: &mut Rng) {
        self.offered += 1;
        let slot = if self.kept.len() < self.size { self.kept.len() } else { rng.usize(..self.offered) };
        if slot >= self.size {
            return;
        }
        // A copy, because the body may be a slice of a much larger read buffer.
        let body = Bytes::copy_from_slice(body);
        let kept_until = max_age.map(|age| Instant::now() + age.saturating_sub(INACCURACY));
        let ended = Ended { id: Arc::clone(id), body, kept_until };
        match self.kept.get_mut(slot) {
            Some(kept) => *kept = ended,
            None => self.kept.push(ended),
        }
    }

    /// The jobs of the sample.
    pub(super) fn kept(&self) -> Vec<Ended> {
        self.kept.clone()
    }
}
