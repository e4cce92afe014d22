//! The report of a run: the table, and files with everything about each job that broke a promise.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::evidence::Found;
use super::recovery::{Kill, Recovery, p50_and_max};
use super::rig::Rig;
use super::{Failures, Options, Stack, Tallied, justify};
use crate::history::{Counts, Event, History, JobDump, Outcome, Verdict};

/// Violations printed in the table; all are in `violations.txt`.
const SHOWN: usize = 20;

/// The outcome of a run.
#[derive(Debug)]
pub struct Report {
    /// The options of the run.
    pub options: Options,
    /// The server's version.
    pub redis_version: String,
    /// The verdict of the checker.
    pub verdict: Verdict,
    /// The faults.
    pub faults: BTreeMap<String, Tallied>,
    /// Why jobs failed.
    pub failures: Failures,
    /// Jobs of killed workers.
    pub recovery: Recovery,
    /// From the end of the faults until no job was outstanding.
    pub settled_after: Option<Duration>,
    /// What else went wrong, such as a recovery that took too long.
    pub problems: Vec<String>,
    /// Everything that was recorded and read back.
    pub history: History,
}

impl Report {
    pub(super) fn new(options: &Options, rig: &Rig, found: Found, kills: &[Kill]) -> Self {
        let version = rig.stack.redis.info("redis_version");
        let recovery = Recovery::measure(kills, &found.history.records);
        let mut problems = found.problems;
        let bound = options.lease + options.recovery_slack;
        if let Some(slowest) = recovery.alone.last().filter(|slowest| **slowest > bound) {
            problems.push(format!("a job of a killed worker waited {slowest:?} for its next attempt"));
        }
        let failures = justify(&found.history.last, &rig.tally.injected());
        problems.extend(failures.unjustified.iter().cloned());
        problems.extend(rig.versions.misplaced(&found.history));
        Self {
            options: options.clone(),
            redis_version: version.unwrap_or_else(|| "unknown".to_owned()),
            verdict: found.verdict,
            faults: rig.tally.all(),
            failures,
            recovery,
            settled_after: found.settled_after,
            problems,
            history: found.history,
        }
    }

    /// Whether every promise was kept and the run itself had no problem.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.verdict.holds() && self.problems.is_empty()
    }

    /// Panics with the table unless [`holds`](Self::holds).
    #[track_caller]
    pub fn assert_holds(&self) {
        assert!(self.holds(), "{self}");
    }

    /// Number of faults that really hit.
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.faults.values().map(|tallied| tallied.hit).sum()
    }

    /// Jobs in Redis at the end, accepted knowingly or not.
    #[must_use]
    pub fn jobs(&self) -> usize {
        self.history.last.jobs.len()
    }

    /// How often an outcome was rejected because its worker no longer held the job.
    #[must_use]
    pub fn fenced(&self) -> usize {
        self.settled(Outcome::Fenced)
    }

    fn settled(&self, wanted: Outcome) -> usize {
        let is_wanted = |event: &Event| matches!(event, Event::Settled { outcome, .. } if *outcome == wanted);
        self.history.records.iter().filter(|record| is_wanted(&record.event)).count()
    }

    fn sum(&self, number: impl Fn(&JobDump) -> u64) -> u64 {
        self.history.last.jobs.values().map(number).sum()
    }

    /// Writes logs, violations, and everything that is known about each job in a violation.
    pub(super) fn write_files(&self, stack: &Stack) {
        let dir = &self.options.dir;
        let nodes = stack.workers.iter().map(|node| ("worker", node.process.logs()));
        let proxies = stack.proxies.iter().map(|node| ("proxy", node.process.logs()));
        for (number, (name, logs)) in nodes.chain(proxies).enumerate() {
            write(dir, &format!("{name}-{number}.log"), &(logs.lines().join("\n") + "\n"));
        }
        write(dir, "redis.log", &stack.redis.log());
        write(dir, "report.txt", &format!("{self}\n"));
        if !self.holds() {
            let lines: Vec<String> = self.verdict.violations.iter().map(ToString::to_string).collect();
            write(dir, "violations.txt", &(lines.join("\n") + "\n"));
            write(dir, "offenders.jsonl", &self.offenders());
        }
    }

    /// All records of the first jobs that a violation names, one job a paragraph, then their hashes.
    fn offenders(&self) -> String {
        let named = self.verdict.violations.iter().map(|violation| violation.subject.as_str());
        let named: BTreeSet<&str> = named.take(SHOWN).collect();
        let mut text = String::new();
        for id in named {
            let mut records: Vec<_> = self
                .history
                .records
                .iter()
                .filter_map(|record| serde_json::to_value(record).ok())
                .filter(|record| record["id"] == id || record["of"] == id)
                .collect();
            records.sort_by_key(|record| record["began_us"].as_u64());
            let dump = self.history.last.jobs.get(id).map(|dump| json!({ "id": id, "at_the_end": dump }));
            let lines = records.into_iter().chain(dump).map(|line: Value| line.to_string());
            text += &(lines.collect::<Vec<_>>().join("\n") + "\n\n");
        }
        text
    }
}

fn write(dir: &Path, name: &str, text: &str) {
    let path = dir.join(name);
    fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Options { seed, length, rate, lease, fsync, dir, .. } = &self.options;
        writeln!(f, "seed {seed}, {length:?} at {rate} jobs/s, lease {lease:?}")?;
        writeln!(f, "redis-server {}, appendfsync {fsync:?}\n", self.redis_version)?;
        self.write_jobs(f)?;
        self.write_models(f)?;
        self.write_faults(f)?;
        self.write_failures(f)?;
        self.write_recovery(f)?;
        writeln!(f, "\nlogs and history: {}", dir.display())?;
        if self.holds() {
            return write!(f, "every promise was kept");
        }
        writeln!(f, "BROKEN: repeat with SEED={seed}; see violations.txt and offenders.jsonl")?;
        for problem in &self.problems {
            writeln!(f, "  {problem}")?;
        }
        for violation in self.verdict.violations.iter().take(SHOWN) {
            writeln!(f, "  {violation}")?;
        }
        write!(f, "{} violations, {} other problems", self.verdict.violations.len(), self.problems.len())
    }
}

impl Report {
    fn write_jobs(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = &self.verdict;
        let refused = |event: &Event| matches!(event, Event::Refused { .. });
        let refused = self.history.records.iter().filter(|record| refused(&record.event)).count();
        let rows = [
            ("jobs in Redis at the end", self.jobs() as u64),
            ("  known to their clients", verdict.all.accepted as u64),
            ("  completed", verdict.all.completed as u64),
            ("  failed", verdict.all.failed as u64),
            ("  cancelled", verdict.all.cancelled as u64),
            ("refused submits", refused as u64),
            ("ambiguous submits", verdict.ambiguous as u64),
            ("attempts granted", self.sum(|job| job.number("attempt"))),
            ("  released unused", self.sum(|job| job.number("released"))),
            ("  lease lapsed", self.sum(|job| job.number("lost"))),
            (
                "  most for one job",
                self.history.last.jobs.values().map(|job| job.number("attempt")).max().unwrap_or(0),
            ),
            ("  failed and retried", self.settled(Outcome::Retried) as u64),
            ("late outcomes refused", self.fenced() as u64),
            ("repairs", self.history.last.repairs),
            ("LOST", verdict.all.lost as u64),
            ("DOUBLED", verdict.all.doubled as u64),
            ("violations of I1 to I10", verdict.violations.len() as u64),
        ];
        rows.iter().try_for_each(|(name, count)| writeln!(f, "{name:<44} {count:>8}"))
    }

    fn write_models(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heads = ["accepted", "completed", "failed", "cancelled", "LOST", "DOUBLED"];
        write!(f, "\n{:<11}", "model")?;
        heads.iter().try_for_each(|head| write!(f, " {head:>9}"))?;
        writeln!(f)?;
        for (model, counts) in &self.verdict.by_model {
            let Counts { accepted, completed, failed, cancelled, lost, doubled } = *counts;
            let counts = [accepted, completed, failed, cancelled, lost, doubled];
            write!(f, "{model:<11}")?;
            counts.iter().try_for_each(|count| write!(f, " {count:>9}"))?;
            writeln!(f)?;
        }
        Ok(())
    }

    fn write_faults(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{:<44} {:>8} {:>8} {:>8}", "faults", "tried", "hit", "touched")?;
        for (kind, Tallied { tried, hit, touched }) in &self.faults {
            writeln!(f, "{kind:<44} {tried:>8} {hit:>8} {touched:>8}")?;
        }
        writeln!(f, "{:<44} {:>8} {:>8}", "all", self.tried(), self.hits())
    }

    fn write_failures(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{:<11} {:<17} {:<32} {:>8}", "model", "failed jobs", "justified by", "jobs")?;
        for ([model, code, why], jobs) in &self.failures.justified {
            writeln!(f, "{model:<11} {code:<17} {why:<32} {jobs:>8}")?;
        }
        writeln!(f, "{:<62} {:>8}", "by nothing", self.failures.unjustified.len())
    }

    fn tried(&self) -> u64 {
        self.faults.values().map(|tallied| tallied.tried).sum()
    }

    /// Times from acceptance to the result, shortest first, on the clock of Redis.
    #[must_use]
    pub fn latencies(&self) -> Vec<Duration> {
        let completed = self.history.last.jobs.values().filter(|job| job.status() == "completed");
        let took = completed.map(|job| job.number("took_ms"));
        let mut took: Vec<Duration> = took.map(Duration::from_millis).collect();
        took.sort_unstable();
        took
    }

    fn write_recovery(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n{:<44} {:>8} {:>8} {:>8}",
            "from kill -9 to the job's next attempt", "jobs", "p50", "max"
        )?;
        let rows = [
            ("worker killed, nothing else wrong", &self.recovery.alone),
            ("worker killed among other faults", &self.recovery.among_others),
        ];
        for (name, times) in rows {
            let (p50, max) = p50_and_max(times).unwrap_or_default();
            writeln!(
                f,
                "{name:<44} {:>8} {:>7.2}s {:>7.2}s",
                times.len(),
                p50.as_secs_f64(),
                max.as_secs_f64()
            )?;
        }
        let latencies = self.latencies();
        if let Some((p50, max)) = p50_and_max(&latencies) {
            let p99 = latencies[latencies.len() * 99 / 100];
            writeln!(f, "from acceptance to the result: p50 {p50:?}, p99 {p99:?}, max {max:?}")?;
        }
        match self.settled_after {
            Some(after) => writeln!(f, "all jobs ended {:.1}s after the last fault", after.as_secs_f64()),
            None => writeln!(f, "some jobs never ended"),
        }
    }
}
