//! Service level objectives such as `submit_p99_ms<20,lost<1`. They are judged on a summary; an objective that was not measured
//! is broken.

use std::fmt;

use serde::Serialize;

use crate::measure::summary::Summary;
use metric::Metric;

pub(crate) mod metric;

/// The objectives of every run. A term of the user on the same metric replaces the one here.
pub(crate) const ALWAYS: &str = "errors_ratio<0.01,lost<1,changed<1,duplicated<1,mixed_up<1";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Below,
    AtMost,
    Above,
    AtLeast,
}

/// The longer operators come first, so that `<=` is not parsed as `<`.
const OPERATORS: [(&str, Comparison); 4] = [
    ("<=", Comparison::AtMost),
    (">=", Comparison::AtLeast),
    ("<", Comparison::Below),
    (">", Comparison::Above),
];

impl Comparison {
    fn holds(self, value: f64, limit: f64) -> bool {
        match self {
            Self::Below => value < limit,
            Self::AtMost => value <= limit,
            Self::Above => value > limit,
            Self::AtLeast => value >= limit,
        }
    }
}

/// One condition.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Term {
    metric: Metric,
    comparison: Comparison,
    limit: f64,
}

/// All conditions of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Slo(Vec<Term>);

/// The verdict on one condition.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Verdict {
    /// The condition, with one space around the operator.
    pub(crate) term: String,
    /// The measured value; absent if nothing was measured, which breaks the condition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) value: Option<f64>,
    /// Whether the condition holds.
    pub(crate) passed: bool,
}

impl fmt::Display for Term {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operator =
            OPERATORS.iter().find(|(_, known)| *known == self.comparison).map_or("?", |(text, _)| text);
        write!(out, "{} {operator} {}", self.metric.name(), self.limit)
    }
}

impl Term {
    fn parse(text: &str) -> Result<Self, String> {
        let found = OPERATORS.iter().find_map(|(operator, comparison)| {
            text.split_once(operator).map(|(name, limit)| (name.trim(), *comparison, limit.trim()))
        });
        let (name, comparison, limit) =
            found.ok_or_else(|| format!("`{text}` has no operator (< <= > >=)"))?;
        let metric = Metric::named(name).ok_or_else(|| format!("`{name}` in `{text}` is not a name"))?;
        let limit = limit.parse().ok().filter(|limit: &f64| limit.is_finite());
        let limit = limit.ok_or_else(|| format!("`{text}` does not end in a number"))?;
        Ok(Self { metric, comparison, limit })
    }

    fn judge(&self, summary: &Summary) -> Verdict {
        let value = self.metric.value(summary);
        let passed = value.is_some_and(|value| self.comparison.holds(value, self.limit));
        Verdict { term: self.to_string(), value, passed }
    }
}

impl Slo {
    /// Parses terms separated by commas. An empty expression has no terms.
    ///
    /// # Errors
    /// Every mistake in the expression, one a line, and the valid names.
    pub(crate) fn parse(expression: &str) -> Result<Self, String> {
        if expression.trim().is_empty() {
            return Ok(Self::default());
        }
        let (terms, mistakes): (Vec<_>, Vec<_>) =
            expression.split(',').map(|text| Term::parse(text.trim())).partition(Result::is_ok);
        let mistakes: Vec<_> = mistakes.into_iter().filter_map(Result::err).collect();
        if mistakes.is_empty() {
            return Ok(Self(terms.into_iter().flatten().collect()));
        }
        Err(format!("{}\n{}", mistakes.join("\n"), metric::names()))
    }

    /// Adds the terms of `defaults` whose metric is not named here.
    pub(crate) fn or_default(mut self, defaults: &Self) -> Self {
        let missing = |term: &&Term| !self.0.iter().any(|own| own.metric == term.metric);
        let missing: Vec<_> = defaults.0.iter().filter(missing).cloned().collect();
        self.0.extend(missing);
        self
    }

    /// Judges every term.
    pub(crate) fn judge(&self, summary: &Summary) -> Vec<Verdict> {
        self.0.iter().map(|term| term.judge(summary)).collect()
    }

    /// The first condition that a step of a ramp breaks, as a sentence. Conditions on whole runs do not apply.
    pub(crate) fn violated_by_step(&self, step: &Summary) -> Option<String> {
        let terms = self.0.iter().filter(|term| term.metric.describes_a_step());
        let broken =
            terms.map(|term| term.judge(step)).find(|verdict| !verdict.passed && verdict.value.is_some())?;
        Some(format!("{} was {}", broken.term, broken.value.unwrap_or_default()))
    }

    /// The limit of the condition on metric `name`, if there is one.
    pub(crate) fn limit_of(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|term| term.metric.name() == name).map(|term| term.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::latency::LatencySummary;
    use crate::measure::summary::{JobSummary, RequestSummary};

    fn summary(p99_ms: f64, lost: u64) -> Summary {
        let latency = Some(LatencySummary { count: 1, p99_ms, ..Default::default() });
        let submit = RequestSummary { intended: 10, succeeded: 10, latency, ..Default::default() };
        Summary { submit, jobs: JobSummary { lost, ..Default::default() }, ..Default::default() }
    }

    fn passed(expression: &str, summary: &Summary) -> Vec<bool> {
        Slo::parse(expression).unwrap().judge(summary).iter().map(|verdict| verdict.passed).collect()
    }

    #[test]
    fn terms_are_judged_by_their_operator() {
        let summary = summary(20.0, 0);
        let expression = "submit_p99_ms<20, submit_p99_ms <= 20 ,submit_p99_ms>20,submit_p99_ms>=20,lost<1";
        assert_eq!(passed(expression, &summary), [false, true, false, true, true]);
    }

    #[test]
    fn what_was_not_measured_does_not_pass() {
        let verdict = &Slo::parse("health_p99_ms<1000").unwrap().judge(&summary(1.0, 0))[0];
        assert_eq!((verdict.passed, verdict.value), (false, None));
    }

    #[test]
    fn every_mistake_is_reported_with_the_valid_names() {
        let error = Slo::parse("submit_p98_ms<20,,lost=1,errors<many,lost<1,errors<inf").unwrap_err();
        for part in ["`submit_p98_ms`", "`` has no operator", "`lost=1`", "`errors<many`", "`errors<inf`"] {
            assert!(error.contains(part), "{part} is missing in:\n{error}");
        }
        assert!(error.contains("valid names: errors, errors_ratio") && error.contains("p999"), "{error}");
    }

    #[test]
    fn defaults_yield_to_terms_on_the_same_metric() {
        let defaults = Slo::parse(ALWAYS).unwrap();
        let slo = Slo::parse("lost<=3,submit_p99_ms<20").unwrap().or_default(&defaults);
        let terms: Vec<_> = slo.judge(&Summary::default()).into_iter().map(|verdict| verdict.term).collect();
        assert_eq!(
            terms,
            [
                "lost <= 3",
                "submit_p99_ms < 20",
                "errors_ratio < 0.01",
                "changed < 1",
                "duplicated < 1",
                "mixed_up < 1"
            ]
        );
    }

    #[test]
    fn a_step_is_not_judged_by_what_only_a_whole_run_has() {
        let slo = Slo::parse("lost<1,submit_rps>1000,get_p99_ms<5,submit_p99_ms<20").unwrap();
        assert_eq!(slo.violated_by_step(&summary(19.0, 5)), None);
        assert_eq!(slo.violated_by_step(&summary(25.0, 0)).unwrap(), "submit_p99_ms < 20 was 25");
    }

    #[test]
    fn the_expression_may_be_empty() {
        assert_eq!(Slo::parse(" "), Ok(Slo::default()));
        assert_eq!(Slo::parse("submit_p99_ms<20").unwrap().limit_of("submit_p99_ms"), Some(20.0));
    }
}
