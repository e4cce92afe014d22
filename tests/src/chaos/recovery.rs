//! How long the jobs of a killed worker waited for their next attempt.

use std::collections::HashMap;
use std::time::Duration;

use crate::history::{Event, Record};

/// A worker that was killed while it held jobs.
#[derive(Clone, Debug)]
pub(super) struct Kill {
    pub(super) at_us: u64,
    /// Whether no other fault was injected until its jobs were reclaimed.
    pub(super) alone: bool,
    /// Job and its newest attempt.
    pub(super) jobs: Vec<(String, u64)>,
}

/// Times from a kill to the next attempt of each job that the worker held, shortest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// After kills during which no other fault was injected.
    pub alone: Vec<Duration>,
    /// After all other kills.
    pub among_others: Vec<Duration>,
}

impl Recovery {
    /// Finds the attempts in the history. A job is left out if it ended without another attempt, or if the next attempt is not in
    /// the log because that worker was killed before it wrote the line.
    pub(super) fn measure(kills: &[Kill], records: &[Record]) -> Self {
        let mut starts: HashMap<&str, Vec<(u64, u64)>> = HashMap::new();
        for record in records {
            if let Event::Started { id, attempt } = &record.event {
                starts.entry(id).or_default().push((*attempt, record.began_us));
            }
        }
        let mut recovery = Self::default();
        for kill in kills {
            let times = kill.jobs.iter().filter_map(|(job, before)| {
                let next = starts.get(job.as_str())?.iter().find(|(attempt, _)| *attempt == before + 1);
                let next_us = next.map(|(_, at_us)| *at_us)?;
                Some(Duration::from_micros(next_us.saturating_sub(kill.at_us)))
            });
            if kill.alone { recovery.alone.extend(times) } else { recovery.among_others.extend(times) }
        }
        recovery.alone.sort_unstable();
        recovery.among_others.sort_unstable();
        recovery
    }
}

/// The median and the longest of sorted times.
pub(super) fn p50_and_max(sorted: &[Duration]) -> Option<(Duration, Duration)> {
    Some((*sorted.get(sorted.len().saturating_sub(1) / 2)?, *sorted.last()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_attempt_after_the_kill_counts() {
        let start =
            |id: &str, attempt, at_us| Record::at(at_us, Event::Started { id: id.to_owned(), attempt });
        let jobs = ["a", "b", "c"].map(|job| (job.to_owned(), 1)).to_vec();
        let kill = |alone| Kill { at_us: 1_000, alone, jobs: jobs.clone() };
        // The second attempt of c was on a worker that was killed, too.
        let records = [
            start("a", 1, 900),
            start("a", 3, 9_000),
            start("a", 2, 3_000),
            start("b", 1, 950),
            start("c", 3, 9_000),
        ];

        let recovery = Recovery::measure(&[kill(true), kill(false)], &records);

        let two_ms = vec![Duration::from_millis(2)];
        assert_eq!(recovery, Recovery { alone: two_ms.clone(), among_others: two_ms });
    }

    #[test]
    fn the_median_of_nothing_is_nothing() {
        let ms = Duration::from_millis;
        assert_eq!(p50_and_max(&[]), None);
        assert_eq!(p50_and_max(&[ms(1), ms(2), ms(9)]), Some((ms(2), ms(9))));
    }
}
