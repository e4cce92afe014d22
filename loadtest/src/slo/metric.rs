//! The metrics that an objective can name.

use crate::measure::latency::LatencySummary;
use crate::measure::summary::Summary;

type Distribution = fn(&Summary) -> Option<&LatencySummary>;
type Statistic = fn(&LatencySummary) -> f64;
type Number = fn(&Summary) -> Option<f64>;

/// First part of a latency name, its meaning, its place in the summary.
const DISTRIBUTIONS: [(&str, &str, Distribution); 6] = [
    ("submit", "POST /predict, from the scheduled time to the whole answer", |all| {
        all.submit.latency.as_ref()
    }),
    ("get", "GET /job/{id} without waiting, likewise", |all| all.get.latency.as_ref()),
    ("health", "GET /health, likewise", |all| all.health.latency.as_ref()),
    (
        "complete",
        "from the scheduled time of a submission until the load test saw the end of its job",
        |all| all.complete.as_ref(),
    ),
    ("turnaround", "from created_at to finished_at, by the server's clock", |all| all.turnaround.as_ref()),
    ("lag", "how late the load test sent a request", |all| all.lag.as_ref()),
];

/// A step of a ramp has this many distributions: submit, get, health.
const STEP_DISTRIBUTIONS: usize = 3;

/// Middle part of a latency name and its number.
const STATISTICS: [(&str, Statistic); 7] = [
    ("mean", |latency| latency.mean_ms),
    ("p50", |latency| latency.p50_ms),
    ("p90", |latency| latency.p90_ms),
    ("p95", |latency| latency.p95_ms),
    ("p99", |latency| latency.p99_ms),
    ("p999", |latency| latency.p999_ms),
    ("max", |latency| latency.max_ms),
];

/// Every other name, its meaning, its place in the summary.
const NUMBERS: [(&str, &str, Number); 17] = [
    ("errors", "failed requests of every kind, including refused and dropped ones", |all| {
        count(all.errors())
    }),
    ("errors_ratio", "errors over intended requests, 0 to 1", Summary::errors_ratio),
    ("refused", "requests answered 429 or 503", |all| count(all.refused())),
    ("dropped", "requests not sent because of --max-outstanding", |all| count(all.dropped())),
    ("achieved_ratio", "accepted over intended submissions, 0 to 1", |all| all.submit.achieved_ratio()),
    ("submit_rps", "accepted submissions per second of sending", |all| Some(all.rates.submit_rps)),
    ("complete_rps", "completed jobs per second, including the drain", |all| Some(all.rates.complete_rps)),
    ("knee_rps", "highest rate of a ramp at which all objectives on requests held", |all| all.knee_rps),
    ("generator_busy", "share of the time in which the load test needed a core, 0 to 1", |all| {
        all.rates.generator_busy
    }),
    ("completed", "jobs completed", |all| count(all.jobs.completed)),
    ("failed", "jobs that ended as failed", |all| count(all.jobs.failed)),
    ("cancelled", "jobs that ended as cancelled", |all| count(all.jobs.cancelled)),
    ("lost", "accepted jobs later unknown to the server, or not ended within --drain-timeout", |all| {
        count(all.jobs.lost)
    }),
    ("changed", "ended jobs whose bytes differed when read again", changed),
    ("duplicated", "submissions answered with the id of an earlier job of the run", |all| {
        count(all.jobs.duplicated)
    }),
    ("mixed_up", "reads answered with the record of another job", |all| count(all.jobs.mixed_up)),
    ("unverified", "ended jobs that could not be read again", |all| count(all.jobs.unverified)),
];

/// The numbers of them that a step of a ramp has.
const STEP_NUMBERS: [&str; 5] = ["errors", "errors_ratio", "refused", "dropped", "achieved_ratio"];

fn count(value: u64) -> Option<f64> {
    Some(value as f64)
}

/// Unknown if there were jobs to read again and none could be read.
fn changed(all: &Summary) -> Option<f64> {
    (all.jobs.verified > 0 || all.jobs.unverified == 0).then_some(all.jobs.changed as f64)
}

/// One valid name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Metric {
    /// Indices into the distributions and the statistics.
    Latency(usize, usize),
    /// Index into the numbers.
    Number(usize),
}

impl Metric {
    /// Finds a metric by its name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        NUMBERS
            .iter()
            .position(|(known, ..)| *known == name)
            .map(Self::Number)
            .or_else(|| Self::latency(name))
    }

    fn latency(name: &str) -> Option<Self> {
        let (distribution, statistic) = name.strip_suffix("_ms")?.split_once('_')?;
        let distribution = DISTRIBUTIONS.iter().position(|(known, ..)| *known == distribution)?;
        let statistic = STATISTICS.iter().position(|(known, _)| *known == statistic)?;
        Some(Self::Latency(distribution, statistic))
    }

    /// Its name.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Latency(distribution, statistic) => {
                format!("{}_{}_ms", DISTRIBUTIONS[distribution].0, STATISTICS[statistic].0)
            }
            Self::Number(number) => NUMBERS[number].0.to_owned(),
        }
    }

    /// Its value in `summary`; `None` if it was not measured.
    pub(crate) fn value(self, summary: &Summary) -> Option<f64> {
        match self {
            Self::Latency(distribution, statistic) => {
                DISTRIBUTIONS[distribution].2(summary).map(STATISTICS[statistic].1)
            }
            Self::Number(number) => NUMBERS[number].2(summary),
        }
    }

    /// Whether a step of a ramp has it.
    pub(crate) fn describes_a_step(self) -> bool {
        match self {
            Self::Latency(distribution, _) => distribution < STEP_DISTRIBUTIONS,
            Self::Number(number) => STEP_NUMBERS.contains(&NUMBERS[number].0),
        }
    }
}

/// All valid names in three lines, for error messages.
pub(crate) fn names() -> String {
    let distributions: Vec<_> = DISTRIBUTIONS.iter().map(|(name, ..)| *name).collect();
    let statistics: Vec<_> = STATISTICS.iter().map(|(name, _)| *name).collect();
    let numbers: Vec<_> = NUMBERS.iter().map(|(name, ..)| *name).collect();
    format!(
        "valid names: {}\nand latencies <what>_<statistic>_ms, such as submit_p99_ms\n  what: {}\n  statistic: {}",
        numbers.join(", "),
        distributions.join(", "),
        statistics.join(", ")
    )
}

/// All valid names with their meanings, for `--help`.
pub(crate) fn reference() -> String {
    let row = |name: &str, meaning: &str| format!("  {name:<16}{meaning}\n");
    let statistics: Vec<_> = STATISTICS.iter().map(|(name, _)| *name).collect();
    let mut text = "Names for --slo (operators: < <= > >=; terms separated by commas):\n".to_owned();
    text.extend(NUMBERS.iter().map(|(name, meaning, _)| row(name, meaning)));
    text += &format!("  and <what>_<statistic>_ms, statistic one of {}:\n", statistics.join(" "));
    text.extend(DISTRIBUTIONS.iter().map(|(name, meaning, _)| row(name, meaning)));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::summary::{JobSummary, RequestSummary};

    #[test]
    fn every_name_is_found_again() {
        let numbers = (0..NUMBERS.len()).map(Metric::Number);
        let latencies = (0..DISTRIBUTIONS.len())
            .flat_map(|what| (0..STATISTICS.len()).map(move |which| Metric::Latency(what, which)));
        for metric in numbers.chain(latencies) {
            assert_eq!(Metric::named(&metric.name()), Some(metric), "{}", metric.name());
            let name = metric.name();
            let stem = name.split('_').next().unwrap();
            assert!(names().contains(stem) && reference().contains(stem), "{name} is not documented");
        }
    }

    #[test]
    fn a_name_gives_its_number() {
        let latency = LatencySummary { count: 4, p99_ms: 7.5, ..Default::default() };
        let submit = RequestSummary {
            intended: 8,
            succeeded: 4,
            failed: 4,
            latency: Some(latency),
            ..Default::default()
        };
        let summary = Summary { submit, ..Default::default() };
        let value = |name| Metric::named(name).unwrap().value(&summary);
        assert_eq!(value("submit_p99_ms"), Some(7.5));
        assert_eq!(value("errors_ratio"), Some(0.5));
        assert_eq!(value("get_p99_ms"), None);
        assert_eq!(value("knee_rps"), None);
    }

    #[test]
    fn jobs_that_nobody_could_read_again_are_not_unchanged() {
        let jobs = |verified, unverified| Summary {
            jobs: JobSummary { verified, unverified, ..Default::default() },
            ..Default::default()
        };
        let changed = Metric::named("changed").unwrap();
        assert_eq!(changed.value(&jobs(0, 5)), None);
        assert_eq!((changed.value(&jobs(4, 1)), changed.value(&jobs(0, 0))), (Some(0.0), Some(0.0)));
    }

    #[test]
    fn steps_of_a_ramp_are_judged_by_requests_only() {
        let describes = |name| Metric::named(name).unwrap().describes_a_step();
        assert!(describes("submit_p99_ms") && describes("errors_ratio"));
        assert!(!describes("complete_p99_ms") && !describes("lost") && !describes("submit_rps"));
    }
}
