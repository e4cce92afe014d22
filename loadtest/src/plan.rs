//! What a run will do: the command line with its defaults filled in and every mistake found before the first request.

use std::path::{Path, PathBuf};
use std::time::Duration;

use humantime::format_duration;
use hyper::body::Bytes;
use hyper::header::HeaderValue;

use crate::follow::Mode;
use crate::options::{Command, Common, Options, Preset};
use crate::preset;
use crate::profile::{Mix, Profile};
use crate::slo::{self, Slo};
use crate::target::Target;

/// The example of the specification, section 4.2.
const SAMPLE_ROW: &str = "[5.1,3.5,1.4,0.2]";
/// No machine that this runs on sends more.
const HIGHEST_RATE: f64 = 1_000_000.0;
/// More connections, jobs at once or rows no machine and no proxy takes; memory is made ready for each.
const HIGHEST_NUMBER: usize = 100_000;
const USUAL_DRAIN_TIMEOUT: Duration = Duration::from_secs(120);
const USUAL_GET_RATIO: f64 = 1.0;
/// A proxy answers one connection's probes at five a second in the long run. In 30 s, so many have a p99 that is not simply
/// the maximum.
const USUAL_HEALTH_RATE: f64 = 4.0;
/// What a step of a ramp must hold if nothing else is asked: the tolerated maximum of the specification.
const RAMP_SLO: &str = "submit_p99_ms<50";

/// A run without mistakes.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The load in a few words.
    pub(crate) title: String,
    pub(crate) profile: Profile,
    pub(crate) mix: Mix,
    pub(crate) slo: Slo,
    pub(crate) target: Target,
    pub(crate) key: Option<HeaderValue>,
    pub(crate) timeout: Duration,
    /// The body of every submission.
    pub(crate) body: Bytes,
    pub(crate) max_outstanding: u32,
    pub(crate) connections: usize,
    pub(crate) follow: Mode,
    pub(crate) followers: usize,
    pub(crate) wait: Duration,
    pub(crate) drain_timeout: Duration,
    pub(crate) verify_sample: usize,
    pub(crate) json: Option<PathBuf>,
    pub(crate) html: Option<PathBuf>,
    pub(crate) quiet: bool,
}

/// Everything wrong with a command line, one sentence each.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub(crate) struct Mistakes(Vec<String>);

impl Mistakes {
    fn check(&mut self, holds: bool, sentence: &str) {
        if !holds {
            self.0.push(sentence.to_owned());
        }
    }

    fn rate(&mut self, name: &str, rate: f64) {
        let holds = rate > 0.0 && rate <= HIGHEST_RATE;
        self.check(
            holds,
            &format!("{name} must be above 0 and at most {HIGHEST_RATE} per second, not {rate}"),
        );
    }

    fn number(&mut self, name: &str, number: usize) {
        let holds = (1..=HIGHEST_NUMBER).contains(&number);
        self.check(holds, &format!("{name} must be above 0 and at most {HIGHEST_NUMBER}, not {number}"));
    }

    fn length(&mut self, name: &str, length: Duration) {
        self.check(!length.is_zero(), &format!("{name} must be above 0"));
    }

    fn keep<T>(&mut self, result: Result<T, String>) -> Option<T> {
        result.map_err(|mistake| self.0.push(mistake)).ok()
    }
}

impl Plan {
    /// Fills in the defaults and reads `--body`.
    ///
    /// # Errors
    /// Every mistake at once.
    pub(crate) fn new(options: Options) -> Result<Self, Mistakes> {
        let Options { command, common } = options;
        let mut mistakes = Mistakes(Vec::new());
        check_command(&command, &mut mistakes);
        check_common(&common, &mut mistakes);
        let slo = mistakes.keep(Slo::parse(&common.slo).map_err(|error| format!("--slo: {error}")));
        let target = mistakes.keep(Target::parse(&common.url).map_err(|error| format!("--url: {error}")));
        // What is refused for its number of rows is not made for the sake of other mistakes.
        let rows = common.rows.min(HIGHEST_NUMBER);
        let body = mistakes.keep(body(common.body.as_deref(), rows));
        match (slo, target, body) {
            (Some(slo), Some(target), Some(body)) if mistakes.0.is_empty() => {
                let defaults = Slo::parse(default_slo(&command))
                    .and_then(|own| Ok(own.or_default(&Slo::parse(slo::ALWAYS)?)));
                let slo = slo.or_default(&defaults.map_err(|mistake| Mistakes(vec![mistake]))?);
                Ok(Self::assemble(&command, common, slo, target, body))
            }
            _ => Err(mistakes),
        }
    }

    fn assemble(command: &Command, common: Common, slo: Slo, target: Target, body: Bytes) -> Self {
        let is_preset = matches!(command, Command::Preset { .. });
        let usual_drain = if is_preset { preset::DRAIN_TIMEOUT } else { USUAL_DRAIN_TIMEOUT };
        let followers =
            if let Command::Run { concurrency, .. } = command { *concurrency } else { common.followers };
        let mix = Mix {
            spacing: common.arrivals,
            get_ratio: common.get_ratio.unwrap_or(USUAL_GET_RATIO),
            health_rate: common.health_rate.unwrap_or(USUAL_HEALTH_RATE),
            seed: common.seed,
        };
        Self {
            title: title(command),
            profile: profile(command),
            mix,
            slo,
            target,
            key: common.key,
            timeout: common.timeout,
            body,
            max_outstanding: common.max_outstanding,
            connections: common.connections,
            follow: common.follow,
            followers,
            wait: common.wait,
            drain_timeout: common.drain_timeout.unwrap_or(usual_drain),
            verify_sample: common.verify_sample,
            json: common.json,
            html: common.html,
            quiet: common.quiet,
        }
    }
}

fn profile(command: &Command) -> Profile {
    match command {
        Command::Constant { rate, duration } | Command::Soak { rate, duration } => {
            Profile::Phases { rates: vec![*rate], length: *duration }
        }
        Command::Steps { steps, step_duration } => {
            Profile::Phases { rates: steps.clone(), length: *step_duration }
        }
        Command::Ramp { from, growth, max_rate, step_duration } => {
            Profile::Ramp { from: *from, growth: *growth, max_rate: *max_rate, length: *step_duration }
        }
        Command::Run { jobs, concurrency } => Profile::Closed { jobs: *jobs, concurrency: *concurrency },
        Command::Preset { name: Preset::Specification, duration } => preset::profile(*duration),
    }
}

fn title(command: &Command) -> String {
    match command {
        Command::Constant { rate, duration } => {
            format!("constant {rate}/s for {}", format_duration(*duration))
        }
        Command::Soak { rate, duration } => format!("soak {rate}/s for {}", format_duration(*duration)),
        Command::Steps { steps, step_duration } => {
            let steps: Vec<_> = steps.iter().map(ToString::to_string).collect();
            format!("steps {}/s, {} each", steps.join(", "), format_duration(*step_duration))
        }
        Command::Ramp { from, growth, step_duration, .. } => {
            format!("ramp from {from}/s, times {growth} every {}", format_duration(*step_duration))
        }
        Command::Run { jobs, concurrency } => format!("run of {jobs} jobs, {concurrency} at once"),
        Command::Preset { name: Preset::Specification, duration } => {
            format!("preset specification for {}", format_duration(*duration))
        }
    }
}

fn default_slo(command: &Command) -> &'static str {
    match command {
        Command::Ramp { .. } => RAMP_SLO,
        Command::Preset { name: Preset::Specification, .. } => preset::SLO,
        _ => "",
    }
}

fn check_command(command: &Command, mistakes: &mut Mistakes) {
    match command {
        Command::Constant { rate, duration } | Command::Soak { rate, duration } => {
            mistakes.rate("--rate", *rate);
            mistakes.length("--duration", *duration);
        }
        Command::Steps { steps, step_duration } => {
            steps.iter().for_each(|rate| mistakes.rate("each of --steps", *rate));
            mistakes.length("--step-duration", *step_duration);
        }
        Command::Ramp { from, growth, max_rate, step_duration } => {
            mistakes.rate("--from", *from);
            mistakes.rate("--max-rate", *max_rate);
            mistakes.check(max_rate >= from, "--max-rate must be at least --from");
            mistakes.check(*growth >= 1.01, "--growth must be at least 1.01");
            mistakes.length("--step-duration", *step_duration);
        }
        Command::Run { jobs, concurrency } => {
            mistakes.check(*jobs > 0, "--jobs must be above 0");
            mistakes.number("--concurrency", *concurrency);
        }
        Command::Preset { duration, .. } => mistakes.length("--duration", *duration),
    }
}

fn check_common(common: &Common, mistakes: &mut Mistakes) {
    mistakes.length("--timeout", common.timeout);
    mistakes.number("--rows", common.rows);
    for (name, value) in [("--get-ratio", common.get_ratio), ("--health-rate", common.health_rate)] {
        let holds = value.is_none_or(|value| (0.0..=HIGHEST_RATE).contains(&value));
        mistakes.check(holds, &format!("{name} must be between 0 and {HIGHEST_RATE}"));
    }
    mistakes.check(common.max_outstanding > 0, "--max-outstanding must be above 0");
    mistakes.number("--connections", common.connections);
    mistakes.number("--followers", common.followers);
    mistakes.check(common.wait >= Duration::from_secs(1), "--wait must be at least 1s");
}

fn body(file: Option<&Path>, rows: usize) -> Result<Bytes, String> {
    match file {
        Some(path) => {
            let read = std::fs::read(path)
                .map_err(|error| format!("--body: cannot read {}: {error}", path.display()));
            read.map(Bytes::from)
        }
        None => Ok(Bytes::from(format!("{{\"data\":[{}]}}", vec![SAMPLE_ROW; rows].join(",")))),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn plan(line: &str) -> Result<Plan, String> {
        let words = std::iter::once("tepal-loadtest").chain(line.split_whitespace());
        Plan::new(Options::try_parse_from(words).unwrap()).map_err(|mistakes| mistakes.to_string())
    }

    #[test]
    fn every_mistake_is_reported_at_once() {
        let error =
            plan("constant --rate 0 --duration 0s --url ftp://x --slo nonsense --connections 0").unwrap_err();
        for part in
            ["--rate must", "--duration must", "--url: ", "--slo: `nonsense`", "valid names", "--connections"]
        {
            assert!(error.contains(part), "{part} is missing in:\n{error}");
        }
    }

    #[test]
    fn numbers_beyond_any_machine_are_refused() {
        let many = "--rows 99999999999999999 --connections 99999999999999999 --followers 99999999999999999";
        let error = plan(&format!("run --concurrency 99999999999999999 {many}")).unwrap_err();
        for name in ["--concurrency", "--rows", "--connections", "--followers"] {
            let sentence = format!("{name} must be above 0 and at most 100000, not 99999999999999999");
            assert!(error.contains(&sentence), "{sentence} is missing in:\n{error}");
        }
        let most = "--rows 100000 --connections 100000 --followers 100000";
        assert!(plan(&format!("run --concurrency 100000 {most}")).is_ok());
        assert!(plan("run --concurrency 0").unwrap_err().contains("--concurrency must be above 0"));
    }

    #[test]
    fn errors_and_lost_and_changed_jobs_are_judged_in_every_run() {
        let judged = |line| {
            let verdicts = plan(line).unwrap().slo.judge(&Default::default());
            verdicts.into_iter().map(|verdict| verdict.term).collect::<Vec<_>>()
        };
        assert_eq!(
            judged("constant"),
            ["errors_ratio < 0.01", "lost < 1", "changed < 1", "duplicated < 1", "mixed_up < 1"]
        );
        assert!(judged("ramp --slo get_p99_ms<5").contains(&"submit_p99_ms < 50".to_owned()));
        assert!(
            judged("preset specification --slo submit_p99_ms<8").contains(&"submit_p99_ms < 8".to_owned())
        );
    }

    #[test]
    fn the_built_in_body_has_as_many_rows_as_asked() {
        assert_eq!(&plan("run").unwrap().body[..], br#"{"data":[[5.1,3.5,1.4,0.2]]}"#);
        let body: serde_json::Value = serde_json::from_slice(&plan("run --rows 3").unwrap().body).unwrap();
        assert_eq!(body["data"].as_array().unwrap().len(), 3);
    }

    #[test]
    fn the_preset_exceeds_the_rate_that_it_must_reach() {
        let plan = plan("preset specification").unwrap();
        assert_eq!(plan.profile, Profile::Phases { rates: vec![120.0], length: Duration::from_secs(30) });
        assert_eq!(plan.mix.health_rate, 4.0);
    }

    #[test]
    fn a_closed_loop_has_a_follower_for_every_job_under_way() {
        assert_eq!(plan("run --concurrency 300").unwrap().followers, 300);
    }
}
