//! The record of all calls of the model.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tonic::Code;

use super::request::Rows;

/// One call of the model: Predict or ModelInfer.
#[derive(Clone, Debug)]
pub struct CallRecord {
    /// Number of rows; 0 too if the request could not be read.
    pub rows: usize,
    /// The values of all rows, row after row, as the model takes them.
    pub values: Vec<f32>,
    /// The outputs that the request asks for; all if there are none.
    pub output_filter: Vec<String>,
    /// The id of the request; empty for TensorFlow Serving, which has none.
    pub id: String,
    /// The time that the client allowed for the call; recorded for the Open Inference Protocol only.
    pub deadline: Option<Duration>,
    /// When the request was read.
    pub started: Instant,
    /// When the call ended; `None` while it runs.
    pub ended: Option<Instant>,
    /// How it ended.
    pub outcome: CallOutcome,
}

/// How a Predict call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    /// It still runs.
    Running,
    /// With an answer, right or wrong.
    Answered,
    /// With this status.
    Failed(Code),
    /// The client cancelled it, closed the connection, or its deadline passed.
    Cancelled,
    /// The server was stopped while it ran.
    ServerStopped,
}

/// All calls of one server. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct CallLog(Arc<Mutex<Log>>);

#[derive(Debug, Default)]
struct Log {
    records: Vec<CallRecord>,
    running: usize,
    closed: bool,
}

impl CallLog {
    pub(super) fn records(&self) -> Vec<CallRecord> {
        self.lock().records.clone()
    }

    pub(super) fn count(&self) -> usize {
        self.lock().records.len()
    }

    /// From now on a call that is dropped was stopped by the server.
    pub(super) fn close(&self) {
        self.lock().closed = true;
    }

    /// The server runs again.
    pub(super) fn reopen(&self) {
        self.lock().closed = false;
    }

    /// Records a call that starts now.
    pub(super) fn start(&self, rows: Option<&Rows>) -> RunningCall {
        let record = CallRecord {
            rows: rows.map_or(0, |rows| rows.count),
            values: rows.map_or_else(Vec::new, |rows| rows.values.clone()),
            output_filter: rows.map_or_else(Vec::new, |rows| rows.output_filter.clone()),
            id: rows.map_or_else(String::new, |rows| rows.id.clone()),
            deadline: rows.and_then(|rows| rows.deadline),
            started: Instant::now(),
            ended: None,
            outcome: CallOutcome::Running,
        };
        let mut log = self.lock();
        log.records.push(record);
        log.running += 1;
        RunningCall { log: self.clone(), index: log.records.len() - 1, running: log.running, ended: false }
    }

    fn end(&self, index: usize, outcome: Option<CallOutcome>) {
        let mut log = self.lock();
        let dropped = if log.closed { CallOutcome::ServerStopped } else { CallOutcome::Cancelled };
        let record = &mut log.records[index];
        record.ended = Some(Instant::now());
        record.outcome = outcome.unwrap_or(dropped);
        log.running -= 1;
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.0.lock().expect("no panic while the log is held")
    }
}

/// A call that runs. Dropped before its end, it was cancelled.
pub(super) struct RunningCall {
    log: CallLog,
    index: usize,
    /// How many calls ran when this one started, itself included.
    pub(super) running: usize,
    ended: bool,
}

impl RunningCall {
    pub(super) fn end(mut self, outcome: CallOutcome) {
        self.ended = true;
        self.log.end(self.index, Some(outcome));
    }
}

impl Drop for RunningCall {
    fn drop(&mut self) {
        if !self.ended {
            self.log.end(self.index, None);
        }
    }
}
