//! How consumers claim jobs.

use tepal_shared::job::{JobId, JobStatus, Stream};

use super::{Grant, MAX_LOST, Model, ModelJob, Place, WAITING};

/// Number of entries that `take` reads at a time, and that `start` claims in a stream.
const CHUNK: usize = 16;

/// The expected reply of `take` or `start`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Jobs with their tokens, in order.
    pub(crate) granted: Vec<(JobId, u64)>,
    pub(crate) ended: Vec<(JobId, String)>,
}

/// What a call may still claim.
struct Room {
    jobs: usize,
    bytes: usize,
}

impl Room {
    fn is_used_up(&self) -> bool {
        self.jobs == 0 || self.bytes == 0
    }
}

impl Model {
    /// The outstanding jobs of a stream at a place, in the order of their entries.
    fn at(&self, stream: Stream, is_there: impl Fn(Place) -> bool) -> Vec<usize> {
        let there = |job: &ModelJob| !job.status.is_terminal() && job.stream == stream && is_there(job.place);
        let mut found: Vec<_> = (0..self.jobs.len()).filter(|index| there(&self.jobs[*index])).collect();
        found.sort_by_key(|index| self.jobs[*index].entry);
        found
    }

    pub(crate) fn take(
        &mut self,
        consumer: &'static str,
        order: &[Stream],
        limit: usize,
        max_bytes: usize,
    ) -> Taken {
        let (mut taken, mut room) = (Taken::default(), Room { jobs: limit, bytes: max_bytes });
        for stream in order {
            let mut due = self.at(*stream, |place| matches!(place, Place::Owned { due: true, .. }));
            while !due.is_empty() && !room.is_used_up() {
                let claimed: Vec<_> = due.drain(..due.len().min(room.jobs).min(CHUNK)).collect();
                self.grant_claimed(&claimed, consumer, &mut room, &mut taken);
            }
        }
        for stream in order {
            for index in self.at(*stream, |place| place == Place::New) {
                if !room.is_used_up() {
                    self.grant(index, consumer, &mut room, &mut taken);
                }
            }
        }
        taken
    }

    /// Claims jobs until their inputs reach the limit of bytes. The others are due at once.
    fn grant_claimed(
        &mut self,
        claimed: &[usize],
        consumer: &'static str,
        room: &mut Room,
        taken: &mut Taken,
    ) {
        for index in claimed {
            if room.bytes == 0 {
                self.jobs[*index].place = Place::Owned { consumer: WAITING, due: true };
            } else {
                self.grant(*index, consumer, room, taken);
            }
        }
    }

    fn grant(&mut self, index: usize, consumer: &'static str, room: &mut Room, taken: &mut Taken) {
        let job = &mut self.jobs[index];
        let was_lost = job.status == JobStatus::Processing;
        job.lost += u64::from(was_lost);
        let too_often = was_lost && job.lost >= MAX_LOST;
        if job.overdue || too_often {
            let code = if job.overdue { "timeout" } else { "worker_lost" };
            job.fail(code);
            taken.ended.push((job.id, code.to_owned()));
            return;
        }
        job.attempt += 1;
        job.status = JobStatus::Processing;
        job.place = Place::Owned { consumer, due: false };
        job.waits_for_retry = false;
        taken.granted.push((job.id, job.attempt));
        room.jobs -= 1;
        room.bytes = room.bytes.saturating_sub(job.bytes);
        self.grants.push(Grant { job: index, token: job.attempt, consumer });
    }

    /// A blocking read of one stream.
    pub(crate) fn read(&mut self, inbox: &'static str, stream: Stream) {
        if let Some(index) = self.at(stream, |place| place == Place::New).first() {
            self.jobs[*index].place = Place::Owned { consumer: inbox, due: false };
        }
    }

    pub(crate) fn start(
        &mut self,
        consumer: &'static str,
        inbox: &'static str,
        streams: &[Stream],
        max_bytes: usize,
    ) -> Taken {
        let (mut taken, mut room) = (Taken::default(), Room { jobs: usize::MAX, bytes: max_bytes });
        let is_there = |place| matches!(place, Place::Owned { consumer, .. } if consumer == inbox);
        for stream in streams {
            let claimed = self.at(*stream, is_there);
            self.grant_claimed(&claimed[..claimed.len().min(CHUNK)], consumer, &mut room, &mut taken);
        }
        taken
    }
}
