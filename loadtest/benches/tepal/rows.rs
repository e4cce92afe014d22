//! The measurements. Each group measures its limit and Tepal in turns, round by round.

mod batching;
mod depth;
mod drain;
mod durability;
mod fairness;
mod http;
mod large;
mod latency;
mod memory;
mod models;
mod partitions;
mod scaling;

use clap::ValueEnum;

use crate::Scale;
use crate::series::Series;

/// Rows of the table that are measured together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Group {
    /// POST /predict against bare axum
    Http,
    /// Submitting and draining against redis-benchmark, and Redis's time for it
    Drain,
    /// From submission to stored result
    Latency,
    /// Bytes of a finished job
    Memory,
    /// Several workers
    Scaling,
    /// A busy model beside idle ones, and the commands of idle workers
    Models,
    /// Idle workers, lone jobs and a frozen primary, with several partitions
    Partitions,
    /// A model with few jobs beside a saturated one
    Fairness,
    /// Large inputs, and what uploads cost others
    Large,
    /// Short and long backlogs
    Depth,
    /// Jobs that share model calls
    Batching,
    /// The cost of `appendfsync always`
    Durability,
}

/// One row of the table.
pub(crate) struct Row {
    pub(crate) what: String,
    /// The result of the limit, with its unit.
    pub(crate) limit: Option<(Series, &'static str)>,
    /// The result of Tepal, with its unit.
    pub(crate) tepal: (Series, &'static str),
    /// The number that the target judges.
    pub(crate) judged: Series,
    pub(crate) target: Target,
}

/// The target of a row.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    AtLeast(f64),
    AtMost(f64),
}

/// Figures below the table.
pub(crate) struct Detail {
    pub(crate) title: &'static str,
    pub(crate) text: String,
    pub(crate) head: Vec<&'static str>,
    pub(crate) lines: Vec<Vec<String>>,
}

/// All figures of a run.
#[derive(Default)]
pub(crate) struct Measured {
    pub(crate) rows: Vec<Row>,
    pub(crate) details: Vec<Detail>,
}

impl Row {
    /// A row that judges Tepal's rate over the limit's.
    fn ratio(what: &str, limit: Series, tepal: Series, unit: &'static str, target: Target) -> Self {
        let judged = tepal.over(&limit);
        Self { what: what.to_owned(), limit: Some((limit, unit)), tepal: (tepal, unit), judged, target }
    }

    /// A row that judges the measured value.
    fn value(what: &str, tepal: Series, unit: &'static str, target: Target) -> Self {
        Self { what: what.to_owned(), limit: None, judged: tepal.clone(), tepal: (tepal, unit), target }
    }
}

/// Measures the groups of `only`, or all.
pub(crate) async fn measure(only: &[Group], scale: Scale) -> Measured {
    let mut measured = Measured::default();
    for group in Group::value_variants() {
        if !only.is_empty() && !only.contains(group) {
            continue;
        }
        println!("{group:?}");
        match group {
            Group::Http => http::measure(&mut measured, scale).await,
            Group::Drain => drain::measure(&mut measured, scale).await,
            Group::Latency => latency::measure(&mut measured, scale).await,
            Group::Memory => memory::measure(&mut measured, scale).await,
            Group::Scaling => scaling::measure(&mut measured, scale).await,
            Group::Models => models::measure(&mut measured, scale).await,
            Group::Partitions => partitions::measure(&mut measured, scale).await,
            Group::Fairness => fairness::measure(&mut measured, scale).await,
            Group::Large => large::measure(&mut measured, scale).await,
            Group::Depth => depth::measure(&mut measured, scale).await,
            Group::Batching => batching::measure(&mut measured, scale).await,
            Group::Durability => durability::measure(&mut measured, scale).await,
        }
    }
    measured
}

/// One line of progress.
fn say(round: usize, what: &str, value: f64, unit: &str) {
    println!("  round {}  {what:<44} {:>12} {unit}", round + 1, crate::series::number(value));
}
