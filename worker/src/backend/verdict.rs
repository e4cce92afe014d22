//! Decides who is to blame for a failed model call, and what the worker does next. No other code decides that. The table in
//! `docs/guarantees.md` explains it.

/// How often a batch waits for an overloaded server before it is released, or a lone job uses an attempt. Each wait halves
/// the number of concurrent calls.
const MOST_WAITS: u32 = 4;

/// What a failure shows by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The server is unreachable. It has not seen the call.
    Unavailable,
    /// The connection broke after the server may have seen the call.
    Broken,
    /// No answer in time.
    Silent,
    /// The server answered that it cannot run the call now.
    Busy,
    /// The server answered that its queue is full. It serves other calls.
    Full,
    /// The server lacks memory or another resource for the call.
    Overloaded,
    /// The request or the answer exceeds a limit on the size of messages.
    TooLarge,
    /// The server failed while it ran the call. Another try may succeed.
    Failed,
    /// The server refuses the call, because of its own state or because of the input.
    Refused,
    /// The server rejects the input.
    Rejected,
    /// The answer cannot be used. The same input gives the same answer again.
    Unusable,
    /// The job's own time limit ended.
    Expired,
}

/// The evidence beside the failure itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Whether the call had several jobs.
    pub is_shared: bool,
    /// Whether other calls run, or one succeeded a moment ago.
    pub is_serving: bool,
    /// Whether another call succeeded since the first call with this job.
    pub has_succeeded: bool,
    /// Whether the model answered its sample after the batch was refused.
    pub is_examined: bool,
    /// Whether the batch was called again after that.
    pub is_repeated: bool,
    /// How often the batch has waited for an overloaded server.
    pub waits: u32,
    /// Whether the server asked for a longer pause than a batch waits for.
    pub is_put_off: bool,
}

/// What the worker does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Release the jobs and claim no more until the server answers. The server is to blame.
    Stop,
    /// Call each half of the jobs by itself. The batch, or one of its jobs, is to blame.
    Split,
    /// Make the same call again after a pause, with fewer calls at a time. The load is to blame.
    Wait,
    /// Release the jobs. The load is to blame.
    Release,
    /// Call the model with its sample, to find out whether the server or the input is to blame.
    Examine,
    /// Make the same call again.
    Repeat,
    /// Make the same call again after those for the other jobs of the batch. They may show who is to blame.
    Defer,
    /// Retry the lone job later; this uses an attempt.
    Retry,
    /// Fail the lone job. Its input is to blame.
    Fail,
}

impl Verdict {
    /// The verdicts for which a shared call is split.
    pub const SPLITTING: [Self; 7] = [
        Self::Silent,
        Self::Overloaded,
        Self::TooLarge,
        Self::Failed,
        Self::Refused,
        Self::Rejected,
        Self::Unusable,
    ];

    /// What to do after a call that failed like this.
    #[must_use]
    pub fn step(self, evidence: Evidence) -> Step {
        let Evidence { is_shared, is_serving, has_succeeded, is_examined, is_repeated, waits, is_put_off } =
            evidence;
        let may_wait = waits < MOST_WAITS && !is_put_off;
        match self {
            Self::Unavailable | Self::Broken => Step::Stop,
            Self::Busy if !is_serving => Step::Stop,
            Self::Busy | Self::Full if may_wait => Step::Wait,
            Self::Busy | Self::Full => Step::Release,
            Self::Refused if !is_examined => Step::Examine,
            Self::Refused if !is_repeated => Step::Repeat,
            Self::Expired => Step::Fail,
            // A smaller batch may avoid any other failure: no job is charged for it before it is alone.
            _ if is_shared => Step::Split,
            Self::Overloaded if may_wait => Step::Wait,
            Self::Overloaded | Self::Failed | Self::Silent | Self::Refused => Step::Retry,
            Self::Rejected if !has_succeeded && !is_examined => Step::Examine,
            Self::Rejected | Self::TooLarge | Self::Unusable => Step::Fail,
        }
    }

    /// Whether the server answered the call.
    #[must_use]
    pub fn is_answer(self) -> bool {
        !matches!(self, Self::Unavailable | Self::Broken | Self::Silent | Self::Expired)
    }

    /// Whether fewer calls at a time may help.
    #[must_use]
    pub fn is_load(self) -> bool {
        matches!(self, Self::Busy | Self::Full | Self::Overloaded)
    }

    /// Whether the size of the batch is the likely cause, even before smaller ones have succeeded.
    #[must_use]
    pub fn blames_size(self) -> bool {
        matches!(self, Self::Overloaded | Self::TooLarge)
    }

    /// The word for it in logs and metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Broken => "broken",
            Self::Silent => "silent",
            Self::Busy => "busy",
            Self::Full => "full",
            Self::Overloaded => "overloaded",
            Self::TooLarge => "too_large",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Rejected => "rejected",
            Self::Unusable => "unusable",
            Self::Expired => "expired",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONE: Evidence = Evidence {
        is_shared: false,
        is_serving: false,
        has_succeeded: false,
        is_examined: false,
        is_repeated: false,
        waits: 0,
        is_put_off: false,
    };
    const SHARED: Evidence = Evidence { is_shared: true, ..LONE };

    #[test]
    fn a_shared_call_never_charges_its_jobs() {
        use Verdict::{
            Broken, Busy, Failed, Full, Overloaded, Refused, Rejected, Silent, TooLarge, Unavailable,
            Unusable,
        };
        let all = [
            Unavailable,
            Broken,
            Silent,
            Busy,
            Full,
            Overloaded,
            TooLarge,
            Failed,
            Refused,
            Rejected,
            Unusable,
        ];
        for verdict in all {
            for bits in 0_u32..64 {
                let bit = |number: u32| bits >> number & 1 == 1;
                let evidence = Evidence {
                    is_shared: true,
                    is_serving: bit(0),
                    has_succeeded: bit(1),
                    is_examined: bit(2),
                    is_repeated: bit(3),
                    waits: if bit(4) { MOST_WAITS } else { 0 },
                    is_put_off: bit(5),
                };
                let step = verdict.step(evidence);
                assert!(!matches!(step, Step::Retry | Step::Fail), "{verdict:?} {evidence:?}");
            }
        }
    }

    #[test]
    fn a_refusal_is_charged_only_after_the_model_answered_its_sample_in_between() {
        for evidence in [LONE, SHARED] {
            let examined = Evidence { is_examined: true, ..evidence };
            assert_eq!(Verdict::Refused.step(evidence), Step::Examine);
            assert_eq!(Verdict::Refused.step(examined), Step::Repeat);
        }
        let repeated = Evidence { is_examined: true, is_repeated: true, ..LONE };
        assert_eq!(Verdict::Refused.step(repeated), Step::Retry);
        assert_eq!(Verdict::Refused.step(Evidence { is_shared: true, ..repeated }), Step::Split);
    }

    #[test]
    fn a_busy_server_is_down_only_if_nothing_else_gets_through() {
        let serving = Evidence { is_serving: true, ..SHARED };
        assert_eq!(Verdict::Busy.step(SHARED), Step::Stop);
        assert_eq!(Verdict::Busy.step(serving), Step::Wait);
        assert_eq!(Verdict::Busy.step(Evidence { waits: MOST_WAITS, ..serving }), Step::Release);
        assert_eq!(Verdict::Busy.step(Evidence { is_put_off: true, ..serving }), Step::Release);
    }

    #[test]
    fn a_full_queue_is_never_an_outage_and_uses_no_attempt() {
        for evidence in [LONE, SHARED] {
            assert_eq!(Verdict::Full.step(evidence), Step::Wait);
            assert_eq!(Verdict::Full.step(Evidence { waits: MOST_WAITS, ..evidence }), Step::Release);
        }
    }

    #[test]
    fn a_lone_job_waits_for_an_overloaded_server_before_it_uses_an_attempt() {
        assert_eq!(Verdict::Overloaded.step(SHARED), Step::Split);
        assert_eq!(Verdict::Overloaded.step(LONE), Step::Wait);
        assert_eq!(Verdict::Overloaded.step(Evidence { waits: MOST_WAITS, ..LONE }), Step::Retry);
        assert_eq!(Verdict::TooLarge.step(LONE), Step::Fail);
    }

    #[test]
    fn a_rejected_input_fails_at_once_if_another_succeeded() {
        assert_eq!(Verdict::Rejected.step(LONE), Step::Examine);
        assert_eq!(Verdict::Rejected.step(Evidence { has_succeeded: true, ..LONE }), Step::Fail);
        assert_eq!(Verdict::Rejected.step(Evidence { is_examined: true, ..LONE }), Step::Fail);
    }
}
