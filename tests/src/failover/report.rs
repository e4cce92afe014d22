//! The report of a run, in Markdown.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use clap::ValueEnum as _;

use super::check::{Checked, Last};
use super::faults::Fault;
use super::ledger::Ledger;
use super::stack::Stack;
use super::{Kind, Options};

/// The services must have found the new primary by then.
const RECOVERY: Duration = Duration::from_secs(1);
/// Problems that are shown.
const SHOWN: usize = 20;

/// The outcome of a run.
#[derive(Debug)]
pub struct Report {
    options: Options,
    version: String,
    checked: Vec<Checked>,
    completed: usize,
    accepted: usize,
    lost: usize,
    /// By process, in the whole run.
    reported: (Vec<u64>, Vec<u64>),
    ran_again: usize,
    found_again: usize,
    refused: BTreeMap<String, u64>,
    slowest: Duration,
    loss_lines: Vec<String>,
    problems: Vec<String>,
}

impl Report {
    pub(super) async fn new(
        options: &Options,
        version: String,
        checked: Vec<Checked>,
        last: Last,
        ledger: &Ledger,
        stack: &Stack,
    ) -> Self {
        let (lost, reported) = (ledger.gone(), stack.reported().await);
        let mut problems = last.problems;
        for one in &checked {
            let of_fault = one.problems.iter().cloned().chain(misreported(one)).chain(recovered_late(one));
            problems.extend(of_fault.map(|problem| format!("{}: {problem}", one.struck.fault.name())));
        }
        problems.extend(broken_promise(options, &checked, lost));
        problems.extend(reported_too_many(options, &reported, lost));
        let book = ledger.book();
        Self {
            options: options.clone(),
            version,
            checked,
            completed: last.completed,
            accepted: last.accepted,
            lost,
            reported,
            ran_again: book.ran_again.len(),
            found_again: book.found_again.len(),
            refused: book.refused.clone(),
            slowest: book.slowest,
            loss_lines: stack.loss_lines(),
            problems,
        }
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.problems.is_empty()
    }

    /// The faults of a kind, as a row.
    fn row(&self, fault: Fault, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of_kind: Vec<_> = self.checked.iter().filter(|one| one.struck.fault == fault).collect();
        if of_kind.is_empty() {
            return Ok(());
        }
        let longest = |figure: &dyn Fn(&Checked) -> Option<Duration>| {
            of_kind.iter().filter_map(|one| figure(one)).max().map_or_else(|| "-".to_owned(), milliseconds)
        };
        let sum = |figure: &dyn Fn(&Checked) -> u64| of_kind.iter().map(|one| figure(one)).sum::<u64>();
        writeln!(
            f,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            fault.name(),
            of_kind.len(),
            longest(&|one| Some(one.struck.replaced - one.struck.began)),
            longest(&|one| Some(one.struck.accepting - one.struck.began)),
            longest(&|one| Some(one.struck.whole - one.struck.began)),
            longest(&|one| Some(one.outage)),
            longest(&|one| one.outage_elsewhere),
            longest(&|one| Some(one.waits_elsewhere?.0)),
            longest(&|one| Some(one.waits_elsewhere?.1)),
            sum(&|one| one.lost as u64),
            sum(&|one| one.reported.0),
            sum(&|one| one.ran_again as u64),
        )
    }
}

/// What is wrong with the report of the losses of a fault.
fn misreported(one: &Checked) -> Option<String> {
    let is_silent = one.lost > 0 && one.reported.0 == 0;
    is_silent.then(|| format!("{} jobs are lost, and no proxy reported it", one.lost))
}

/// Whether a submission was not accepted for longer than the topology needed.
fn recovered_late(one: &Checked) -> Option<String> {
    let allowed = one.struck.accepting - one.struck.began + RECOVERY;
    (one.outage > allowed)
        .then(|| format!("no submission accepted for {:.2?}, not {allowed:.2?}", one.outage))
}

/// Which processes reported more lost jobs than are lost. A worker does not know which jobs wait for replicas and were not acknowledged.
fn reported_too_many(
    options: &Options,
    (proxies, workers): &(Vec<u64>, Vec<u64>),
    lost: usize,
) -> Vec<String> {
    let of = |name: &str, reported: &[u64]| {
        let most = reported.iter().max().copied().unwrap_or_default();
        (most > lost as u64).then(|| format!("a {name} reported {most} lost jobs, {lost} are lost"))
    };
    let by_workers = of("worker", workers).filter(|_| options.replicas_required == 0);
    of("proxy", proxies).into_iter().chain(by_workers).collect()
}

/// Whether a setting that excludes a loss did not.
fn broken_promise(options: &Options, checked: &[Checked], lost: usize) -> Option<String> {
    if options.replicas_required >= options.replicas() && lost > 0 {
        return Some(format!("{lost} jobs are lost, although all replicas confirmed them"));
    }
    // A killed primary, or one that only its replicas do not reach, has accepted jobs that no replica has yet.
    let is_safe = |one: &&Checked| !matches!(one.struck.fault, Fault::Kill | Fault::PeersLost);
    let lost: usize = checked.iter().filter(is_safe).map(|one| one.lost).sum();
    (options.min_replicas > 0 && lost > 0)
        .then(|| format!("{lost} jobs are lost by another fault than kill -9, although a replica was needed"))
}

fn milliseconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let model = read("/proc/cpuinfo");
    let model = model.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{cores} cores of {}, Linux {}", model.trim_start_matches(['\t', ' ', ':']), kernel.trim())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Options { kind, length, replicas_required, min_replicas, seed, .. } = &self.options;
        let name = if *kind == Kind::Sentinel { "sentinel" } else { "cluster" };
        writeln!(
            f,
            "`make failover TOPOLOGY={name} SECONDS={} REPLICAS_REQUIRED={replicas_required} \
             MIN_REPLICAS={min_replicas} SEED={seed}`, {}, {}, Redis {}\n",
            length.as_secs(),
            humantime::format_rfc3339_seconds(SystemTime::now()),
            machine(),
            self.version
        )?;
        let head = "fault | times | other primary after | has its replicas after | whole after | no submission accepted for | the same of \
                    other primaries | their jobs waited, p99 | longest | lost | reported | run again";
        writeln!(f, "| {head} |\n|{}", " --- |".repeat(head.split('|').count()))?;
        for fault in Fault::value_variants() {
            self.row(*fault, f)?;
        }
        let Self { accepted, completed, lost, ran_again, found_again, .. } = self;
        writeln!(
            f,
            "\naccepted {accepted}, completed {completed}, lost {lost}; reported by each proxy {:?}, each worker {:?}; \
             ran again with an equal result {ran_again}; not found for a moment {found_again}; longest request {}",
            self.reported.0,
            self.reported.1,
            milliseconds(self.slowest)
        )?;
        writeln!(f, "other answers: {:?}\n\nproblems: {}", self.refused, self.problems.len())?;
        for problem in self.problems.iter().take(SHOWN) {
            writeln!(f, "* {problem}")?;
        }
        for line in self.loss_lines.iter().take(SHOWN) {
            writeln!(f, "    {line}")?;
        }
        Ok(())
    }
}
