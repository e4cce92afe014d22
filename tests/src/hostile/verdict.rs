//! The rules of a run, as functions of its measurements.

use std::time::Duration;

use super::honest::Served;
use super::tally::Summary;

/// The composition's limit of the proxy's memory.
pub(super) const MOST_MEMORY: u64 = 256 << 20;
/// Beside an attack, honest clients must wait less than this many times as long as beside the control program.
const MOST_TIMES: f64 = 2.0;
/// The composition's limit of one address.
const LIMIT: u32 = 100;
/// Bytes of an error, and additional bytes for each job of a batch.
const LARGEST_ERROR: usize = 4096;
/// Bytes of any other answer.
const LARGEST_ANSWER: usize = 8 << 20;

/// The measurements of one attack.
#[derive(Clone, Debug, Default)]
pub(super) struct Measured {
    pub(super) name: String,
    pub(super) what: String,
    /// `MAX_BODY_BYTES`.
    pub(super) largest_body: usize,
    /// Honest clients alone, beside the attack, and beside the control program.
    pub(super) quiet: Served,
    pub(super) attacked: Served,
    pub(super) control: Served,
    pub(super) attack: Summary,
    /// Processor time that the attack took of all processes, and that of the control program.
    pub(super) taken: Duration,
    pub(super) burnt: Duration,
    /// The most memory that the proxy held, bytes.
    pub(super) memory: u64,
    /// Processes that ended by themselves.
    pub(super) gone: Vec<&'static str>,
}

impl Measured {
    /// How many times longer the clients waited beside the attack than beside the control program.
    pub(super) fn times(&self) -> f64 {
        let p99 = |served: &Served| served.quantile(0.99).as_secs_f64();
        p99(&self.attacked) / p99(&self.control).max(1e-6)
    }

    /// The rules that were broken.
    pub(super) fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        for (when, served) in [
            ("before it", &self.quiet),
            ("beside it", &self.attacked),
            ("beside the control program", &self.control),
        ] {
            if let Some(first) = served.failures.first() {
                let (failed, jobs) = (served.failures.len(), served.jobs);
                broken.push(format!(
                    "{failed} of {jobs} honest jobs failed {when}, the first one with: {first}"
                ));
            }
        }
        if self.times() >= MOST_TIMES {
            broken.push(format!("p99 of honest clients was {:.1} times that of the control", self.times()));
        }
        if self.memory >= MOST_MEMORY {
            broken.push(format!("the proxy held {} MiB", self.memory >> 20));
        }
        broken.extend(self.gone.iter().map(|name| format!("{name} ended")));
        broken.extend(self.attack.broken());
        broken
    }
}

impl Summary {
    fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        if self.outcomes.is_empty() {
            broken.push("the attack did nothing".to_owned());
        }
        let is_wrong = |name: &str| name.starts_with('5') && name != "503 overloaded";
        broken.extend(
            self.outcomes
                .iter()
                .filter(|(name, _)| is_wrong(name))
                .map(|(name, count)| format!("{count} answers with {name}")),
        );
        if self.most_in_a_minute > LIMIT {
            broken.push(format!("{} of {LIMIT} requests of one address in a minute", self.most_in_a_minute));
        }
        if self.largest_error > LARGEST_ERROR {
            broken.push(format!("an error of {} bytes", self.largest_error));
        }
        if self.largest_answer > LARGEST_ANSWER {
            broken.push(format!("an answer of {} bytes", self.largest_answer));
        }
        broken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(ms: u64) -> Served {
        Served { jobs: 1, latencies: vec![Duration::from_millis(ms)], failures: Vec::new() }
    }

    fn measured() -> Measured {
        let attack = Summary { outcomes: [("503 overloaded".to_owned(), 3)].into(), ..Summary::default() };
        Measured {
            quiet: served(1),
            attacked: served(39),
            control: served(20),
            attack,
            ..Measured::default()
        }
    }

    #[test]
    fn an_attack_that_takes_nothing_breaks_no_rule() {
        assert_eq!(measured().broken(), [""; 0]);
    }

    #[test]
    fn each_rule_is_judged() {
        let with = |change: fn(&mut Measured)| {
            let mut measured = measured();
            change(&mut measured);
            measured.broken().join("; ")
        };
        type Change = fn(&mut Measured);
        let cases: [(Change, &str); 9] = [
            (|it| it.attacked = served(40), "p99 of honest clients was 2.0 times that of the control"),
            (|it| it.memory = MOST_MEMORY, "the proxy held 256 MiB"),
            (|it| it.gone.push("the proxy"), "the proxy ended"),
            (|it| it.attack.outcomes.clear(), "the attack did nothing"),
            (
                |it| _ = it.attack.outcomes.insert("503 queue_full".to_owned(), 2),
                "2 answers with 503 queue_full",
            ),
            (|it| it.attack.most_in_a_minute = 101, "101 of 100 requests of one address in a minute"),
            (|it| it.attack.largest_error = 4097, "an error of 4097 bytes"),
            (|it| it.attack.largest_answer = (8 << 20) + 1, "an answer of 8388609 bytes"),
            (
                |it| it.control.failures.push("POST: 503".to_owned()),
                "1 of 1 honest jobs failed beside the control program, the first one with: POST: 503",
            ),
        ];
        for (change, expected) in cases {
            assert_eq!(with(change), expected);
        }
    }
}
