//! When each version of `series` was served, and whether the results fit: a result of a version that was not there yet, or of one that
//! no worker had any more when the job was accepted, is wrong.

use std::sync::Mutex;

use serde_json::Value;

use super::models::{ModelKind, version_of};
use crate::history::{Event, History, JobDump, now_us};

/// The versions of a run, the oldest first.
#[derive(Debug)]
pub(super) struct Versions(Mutex<Vec<Served>>);

#[derive(Clone, Copy, Debug)]
struct Served {
    version: i64,
    /// Before the first worker had it.
    from_us: u64,
    /// After every worker had loaded a newer one.
    until_us: Option<u64>,
}

impl Versions {
    /// All workers start with version 1.
    pub(super) fn new() -> Self {
        Self(Mutex::new(vec![Served { version: 1, from_us: 0, until_us: None }]))
    }

    /// The number of the next version, which workers get from now on.
    pub(super) fn next(&self) -> i64 {
        let mut served = self.0.lock().expect("no panic while held");
        let version = 1 + served.len() as i64;
        served.push(Served { version, from_us: now_us(), until_us: None });
        version
    }

    /// Every worker has loaded this version.
    pub(super) fn is_everywhere(&self, version: i64) {
        let mut served = self.0.lock().expect("no panic while held");
        for older in served.iter_mut().filter(|older| older.version < version) {
            older.until_us.get_or_insert(now_us());
        }
    }

    /// A sentence about each result of a version that its job cannot have met.
    pub(super) fn misplaced(&self, history: &History) -> Vec<String> {
        let served = self.0.lock().expect("no panic while held");
        let inputs = history.records.iter().filter_map(|record| match &record.event {
            Event::Submitted { id, input, .. } if input["model"] == ModelKind::Series.name() => {
                Some((id, input))
            }
            _ => None,
        });
        let jobs = inputs.filter_map(|(id, input)| Some((id, input, history.last.jobs.get(id)?)));
        let found: std::collections::BTreeSet<_> = jobs
            .filter_map(|(id, input, job)| Some(format!("{id} {}", misplaced(&served, input, job)?)))
            .collect();
        found.into_iter().collect()
    }
}

fn misplaced(served: &[Served], input: &Value, job: &JobDump) -> Option<String> {
    // A result that is not right at all is another finding.
    let version = version_of(input, &job.json("result")?)?;
    let accepted_us = job.number("at") * 1_000;
    let ended_us = accepted_us + (job.number("took_ms") + 2) * 1_000;
    let Some(served) = served.iter().find(|served| served.version == version) else {
        return Some(format!("has a result of version {version} of series, which never existed"));
    };
    if ended_us < served.from_us {
        return Some(format!("has a result of version {version} of series, which came later"));
    }
    let is_gone = served.until_us.is_some_and(|until_us| until_us < accepted_us);
    is_gone.then(|| format!("has a result of version {version} of series, which no worker had any more"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_result_must_come_from_a_version_of_its_time() {
        let served = |version, from_us, until_us| Served { version, from_us, until_us };
        let versions = [served(1, 0, Some(5_000_000)), served(2, 4_000_000, None)];
        let finding = |version: i64, at_ms: u64, took_ms: u64| {
            let total = 3 + (version << 32);
            let outputs = json!([{"data": [total]}, {"data": [2 + version, 4 + version]}]);
            let result = json!({"prediction": [total], "outputs": outputs}).to_string();
            let fields = [("at", at_ms.to_string()), ("took_ms", took_ms.to_string()), ("result", result)];
            let fields = fields.map(|(name, value)| (name.to_owned(), value)).into();
            let input = json!({"model": "series", "data": [[1, 2]]});
            misplaced(&versions, &input, &JobDump { fields, ttl_ms: Some(1) })
        };
        assert_eq!(finding(1, 4_900, 2_000), None);
        assert_eq!(finding(2, 3_900, 200), None);
        assert!(finding(1, 5_100, 10).unwrap().contains("any more"));
        assert!(finding(2, 3_000, 500).unwrap().contains("came later"));
        assert!(finding(3, 9_000, 10).unwrap().contains("never existed"));
    }
}
