//! A model of the queue in memory: jobs, the order of their entries, and their owners. It has no Redis and no clock: an entry is
//! due or it is not.

mod claims;
mod quota;

use tepal_shared::{
    job::{JobId, JobStatus, Stream},
    queue::{
        intake::{Cancelled, Expired, Requeued, Submitted},
        work::{Fence, Settled},
    },
};

pub(crate) use self::{claims::Taken, quota::MOST_BYTES};

/// The consumer that owns released entries.
pub(crate) const WAITING: &str = "waiting";
/// A job fails when its worker was lost this often: `Policy::max_lost` of the test.
pub(crate) const MAX_LOST: u64 = 3;

/// Where an outstanding job's entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the stream, never delivered.
    New,
    /// In this consumer's pending list; `due`: idle for a lease.
    Owned { consumer: &'static str, due: bool },
    /// Delivered, and then lost with its consumer.
    Orphaned,
}

/// How an attempt settles its job in the test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Complete,
    Fail,
    RetryNow,
    RetryLater,
    Release,
}

/// The expected state of a job.
#[derive(Clone, Debug)]
pub(crate) struct ModelJob {
    pub(crate) id: JobId,
    pub(crate) stream: Stream,
    pub(crate) status: JobStatus,
    /// Length of its input.
    bytes: usize,
    /// Orders the entries of a stream. An entry that is written again gets a new number.
    pub(crate) entry: u64,
    place: Place,
    attempt: u64,
    released: u64,
    lost: u64,
    waits_for_retry: bool,
    overdue: bool,
    /// The token of the attempt that completed it.
    pub(crate) completed_by: Option<u64>,
    error_code: Option<&'static str>,
    /// Whether its kept input has expired.
    is_input_gone: bool,
    /// Payer of its charge.
    payer: &'static str,
    /// Whether that has expired, and whether a worker has seen it.
    is_due: bool,
    is_uncharged: bool,
}

/// A claim. It may belong to a zombie by now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grant {
    pub(crate) job: usize,
    pub(crate) token: u64,
    pub(crate) consumer: &'static str,
}

/// All jobs, in the order in which they were accepted.
#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) jobs: Vec<ModelJob>,
    pub(crate) grants: Vec<Grant>,
    /// (Key, body) -> job.
    keys: Vec<(u8, u8, usize)>,
    entries: u64,
}

impl Model {
    pub(crate) fn submit(
        &mut self,
        id: JobId,
        stream: Stream,
        bytes: usize,
        payer: &'static str,
        key: Option<(u8, u8)>,
    ) -> Submitted {
        if self.jobs.iter().any(|job| job.id == id) {
            return Submitted::Accepted;
        }
        if let Some((key, body)) = key
            && let Some((_, known, job)) = self.keys.iter().find(|(known, ..)| *known == key)
        {
            let job = &self.jobs[*job];
            let duplicate = Submitted::Duplicate { job_id: job.id, status: job.status };
            return if *known == body { duplicate } else { Submitted::Conflict };
        }
        if !self.has_room(payer, bytes) {
            return Submitted::OverQuota { room_in: None };
        }
        self.keys.extend(key.map(|(key, body)| (key, body, self.jobs.len())));
        self.accept(id, stream, bytes, payer);
        Submitted::Accepted
    }

    fn accept(&mut self, id: JobId, stream: Stream, bytes: usize, payer: &'static str) {
        let entry = self.next_entry();
        self.jobs.push(ModelJob {
            id,
            stream,
            status: JobStatus::Pending,
            bytes,
            entry,
            place: Place::New,
            attempt: 0,
            released: 0,
            lost: 0,
            waits_for_retry: false,
            overdue: false,
            completed_by: None,
            error_code: None,
            is_input_gone: false,
            payer,
            is_due: false,
            is_uncharged: false,
        });
    }

    fn next_entry(&mut self) -> u64 {
        self.entries += 1;
        self.entries
    }

    pub(crate) fn renew(&mut self, grant: Grant) -> Option<Fence> {
        let job = &mut self.jobs[grant.job];
        let fence = job.fence(grant.token);
        if fence.is_none() && job.place != Place::Orphaned {
            job.place = Place::Owned { consumer: grant.consumer, due: false };
        }
        fence
    }

    pub(crate) fn settle(&mut self, grant: Grant, way: Way) -> Settled {
        let entry = self.entries + 1;
        let job = &mut self.jobs[grant.job];
        let repeats = job.attempt == grant.token
            && match way {
                Way::Complete => job.status == JobStatus::Completed,
                Way::Fail => job.error_code == Some("invalid_argument"),
                _ => job.status == JobStatus::Pending,
            };
        if repeats {
            return Settled::Done { repaired: false };
        }
        if let Some(fence) = job.fence(grant.token) {
            return Settled::Fenced(fence);
        }
        match way {
            Way::Complete => {
                job.status = JobStatus::Completed;
                job.completed_by = Some(grant.token);
            }
            Way::Fail => job.fail("invalid_argument"),
            Way::RetryNow | Way::RetryLater | Way::Release => {
                job.status = JobStatus::Pending;
                job.waits_for_retry = true;
                job.released += u64::from(way == Way::Release);
                if job.place == Place::Orphaned {
                    job.place = Place::New;
                    job.entry = entry;
                    self.entries = entry;
                    return Settled::Done { repaired: true };
                }
                job.place = Place::Owned { consumer: WAITING, due: way != Way::RetryLater };
            }
        }
        Settled::Done { repaired: false }
    }

    pub(crate) fn cancel(&mut self, index: usize) -> Cancelled {
        let job = &mut self.jobs[index];
        match job.status {
            JobStatus::Completed | JobStatus::Failed => Cancelled::Ended(job.status),
            _ => {
                job.status = JobStatus::Cancelled;
                Cancelled::Done(Some(job.stream.model))
            }
        }
    }

    pub(crate) fn requeue(&mut self, index: usize, id: JobId, payer: &'static str) -> Requeued {
        let ModelJob { status, stream, bytes, is_input_gone, .. } = self.jobs[index];
        if !matches!(status, JobStatus::Failed | JobStatus::Cancelled) {
            return Requeued::NotRepeatable(status);
        }
        if is_input_gone {
            return Requeued::InputExpired(status);
        }
        if !self.has_room(payer, bytes) {
            return Requeued::OverQuota { room_in: None };
        }
        self.accept(id, stream, bytes, payer);
        Requeued::Accepted
    }

    /// The kept input of the ended job expires, if there is one.
    pub(crate) fn lose_input(&mut self, index: usize) {
        let job = &mut self.jobs[index];
        job.is_input_gone = matches!(job.status, JobStatus::Failed | JobStatus::Cancelled);
    }

    /// Its run time limit passes. Returns false if it has not begun or has ended.
    pub(crate) fn overrun(&mut self, index: usize) -> bool {
        let job = &mut self.jobs[index];
        job.overdue = job.attempt > 0 && !job.status.is_terminal();
        job.overdue
    }

    pub(crate) fn expire(&mut self, index: usize) -> Expired {
        let job = &mut self.jobs[index];
        if job.status.is_terminal() || !job.overdue {
            return Expired::Kept(job.status);
        }
        job.fail("timeout");
        Expired::Failed("timeout".to_owned())
    }

    /// The time of a lease passes for all entries of a consumer. Returns whether it has any.
    pub(crate) fn age(&mut self, of: &str) -> bool {
        let mut any = false;
        for job in self.jobs.iter_mut().filter(|job| !job.status.is_terminal()) {
            match &mut job.place {
                Place::Owned { consumer, due } if *consumer == of => (*due, any) = (true, true),
                _ => {}
            }
        }
        any
    }

    /// An operator deletes a consumer.
    pub(crate) fn delete_consumer(&mut self, of: &str) {
        for job in &mut self.jobs {
            if matches!(job.place, Place::Owned { consumer, .. } if consumer == of) {
                job.place = Place::Orphaned;
            }
        }
    }

    /// How many jobs a sweep queues again.
    pub(crate) fn sweep(&mut self) -> u64 {
        let mut repaired = 0;
        for index in 0..self.jobs.len() {
            if self.jobs[index].place == Place::Orphaned && !self.jobs[index].status.is_terminal() {
                let entry = self.next_entry();
                let job = &mut self.jobs[index];
                (job.status, job.place, job.entry) = (JobStatus::Pending, Place::New, entry);
                repaired += 1;
            }
        }
        repaired
    }
}

impl ModelJob {
    fn fail(&mut self, code: &'static str) {
        self.status = JobStatus::Failed;
        self.error_code = Some(code);
    }

    fn fence(&self, token: u64) -> Option<Fence> {
        match self.status {
            JobStatus::Processing if self.attempt == token => None,
            JobStatus::Cancelled => Some(Fence::Cancelled),
            _ => Some(Fence::Lost),
        }
    }

    /// Size of the kept input.
    pub(crate) fn kept_bytes(&self) -> Option<usize> {
        let is_kept = matches!(self.status, JobStatus::Failed | JobStatus::Cancelled) && !self.is_input_gone;
        is_kept.then_some(self.bytes)
    }

    /// The line that `Snapshot::state` should give.
    pub(crate) fn state(&self) -> String {
        let Self { status, attempt, released, lost, .. } = self;
        let place = match self.place {
            _ if status.is_terminal() => "-",
            Place::Owned { consumer, .. } => consumer,
            Place::New | Place::Orphaned => "new",
        };
        let words = match status {
            JobStatus::Completed => " result ttl",
            JobStatus::Failed => " error ttl dead",
            JobStatus::Cancelled => " ttl",
            JobStatus::Pending | JobStatus::Processing => " input",
        };
        let next = if self.waits_for_retry && !status.is_terminal() { " next" } else { "" };
        let limits = if self.overdue && !status.is_terminal() { " limits" } else { "" };
        let kept = if self.kept_bytes().is_some() { " kept" } else { "" };
        format!("{status} {attempt}/{released}/{lost} {place}{words}{next}{limits}{kept}")
    }
}
