//! Finds out whether the backend or a batch is to blame, after the backend has refused the batch.

use tepal_shared::process::telemetry;
use tracing::warn;

use super::Runner;
use crate::{
    backend::{BackendError, Evidence, Step, Verdict},
    run::parts::{Part, Parts},
};

/// How often a call is refused before other calls must have shown that the backend serves. There are pauses between.
const MOST_REFUSALS: u32 = 4;

impl Runner {
    /// Calls the model with its sample, to find out whether the backend or the batch is to blame.
    pub(super) async fn examine(&self, error: &BackendError, part: &mut Part, parts: &Parts) -> Step {
        let vitals = self.breaker.vitals();
        if !self.sample.exists() {
            return self.examine_without_sample(error, part, parts);
        }
        let Some(asked) = self.in_time(&part.batch, self.sample.ask()).await else { return Step::Repeat };
        match asked {
            Ok(_) => {
                vitals.succeeded();
                part.examined();
                error.step(parts.evidence(part, vitals))
            }
            // The backend is too busy to answer.
            Err(sample) if sample.verdict.is_load() => {
                Verdict::Busy.step(Evidence { is_serving: true, ..parts.evidence(part, vitals) })
            }
            // The sample shows nothing.
            Err(refusal)
                if self.sample.is_to_blame(&refusal, vitals)
                    || self.sample.is_on_trial() && part.is_shared() =>
            {
                part.examined();
                error.step(parts.evidence(part, vitals))
            }
            // Another job may show whether the backend serves.
            Err(_) if self.sample.is_on_trial() && parts.may_defer(part) => Step::Defer,
            Err(refusal) => {
                warn!(
                    action = "sample_failed",
                    model = self.name.as_str(),
                    code = refusal.code,
                    error = telemetry::chain(&refusal)
                );
                self.breaker.open_until_sample(&refusal);
                Step::Release
            }
        }
    }

    /// Only other calls can show that the backend serves. It does if one succeeded after the backend refused this one for the first time.
    fn examine_without_sample(&self, error: &BackendError, part: &mut Part, parts: &Parts) -> Step {
        let vitals = self.breaker.vitals();
        // A rejected input is wrong for itself.
        if error.verdict == Verdict::Refused {
            let (since, times) = part.refused();
            if !vitals.has_succeeded_since(since) {
                let may_show = vitals.is_serving() && times < MOST_REFUSALS;
                return if may_show { Step::Repeat } else { Step::Stop };
            }
        }
        part.examined();
        error.step(parts.evidence(part, vitals))
    }
}
