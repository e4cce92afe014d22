//! The behaviour of calls of the model, normal or not, and the script that assigns it to calls.

use std::collections::VecDeque;
use std::time::Duration;

use tonic::Code;

/// What a call of the model does: Predict or ModelInfer.
#[derive(Clone, Debug, PartialEq)]
pub enum Behaviour {
    /// Answers correctly.
    Normal,
    /// Fails every request with this status.
    Status(Code, String),
    /// Waits this long before it starts, then answers correctly.
    Delay(Duration),
    /// Never answers. The call ends when the client cancels it.
    Hang,
    /// Fails the whole call with this code if any row's first value is above this.
    FailRowsOver(f32, Code),
    /// Fails calls of more rows than this with a status.
    FailCallsOver(usize, Code, String),
    /// Fails calls of more bytes than this as gRPC's C++ library does, which has a limit of 4 MiB.
    FailBytesOver(usize),
    /// Crashes if any row's first value is above this: every connection breaks, and the server is back at once.
    CrashOnRowsOver(f32),
    /// Answers with rows that are one value too long on the last axis.
    WrongShape,
    /// Answers without the last row.
    MissingRow,
    /// Answers without the output: the tensor has another name.
    MissingOutput,
    /// Answers with NaN as the first value of the last row.
    Nan,
    /// Answers with an element type that does not exist.
    UnknownDtype,
    /// Answers with the right shape, and one value less than it needs.
    ShortValues,
    /// Answers with 5 MiB in a further output, `padding`: more than a tonic client accepts by default
    /// otherwise.
    HugeReply,
    /// Answers with so many bytes for each row in a further output, `padding`.
    PadReply(usize),
}

/// Behaviours for the calls to come.
#[derive(Debug)]
pub(super) struct Script {
    /// One for each of the next calls.
    pub(super) next: VecDeque<Behaviour>,
    /// For every call after those.
    pub(super) always: Behaviour,
}

impl Script {
    pub(super) fn new() -> Self {
        Self { next: VecDeque::new(), always: Behaviour::Normal }
    }

    /// The behaviour of the call that starts now.
    pub(super) fn take(&mut self) -> Behaviour {
        self.next.pop_front().unwrap_or_else(|| self.always.clone())
    }
}
