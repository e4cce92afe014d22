//! What a run will do: the command line with its defaults. Every mistake is found before the first request.

use std::time::Duration;

use humantime::format_duration;
use hyper::body::Bytes;

use crate::http::settings::ServerSettings;
use crate::http::target::Target;
use crate::jobs::settings::JobSettings;
use crate::load::profile::Profile;
use crate::load::settings::LoadSettings;
use crate::mistakes::Mistakes;
use crate::report::settings::ReportSettings;
use crate::slo::{self, Slo};
use options::{Command, Options, Preset, Steady};

pub(crate) mod options;
mod preset;

const DRAIN_TIMEOUT: Duration = Duration::from_secs(120);
/// The objective that a ramp adds to the user's: the tolerated maximum of the specification.
const RAMP_SLO: &str = "submit_p99_ms<50";

/// A run without mistakes.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The load in a few words.
    pub(crate) title: String,
    pub(crate) profile: Profile,
    pub(crate) slo: Slo,
    pub(crate) target: Target,
    /// The body of every submission.
    pub(crate) body: Bytes,
    /// A job that has not ended this long after the last submission counts as lost.
    pub(crate) drain_timeout: Duration,
    pub(crate) server: ServerSettings,
    pub(crate) load: LoadSettings,
    pub(crate) jobs: JobSettings,
    pub(crate) report: ReportSettings,
}

/// What one command adds to the shared options.
struct Asked {
    title: String,
    profile: Profile,
    slo: &'static str,
    drain_timeout: Duration,
}

impl Plan {
    /// Fills in the defaults and reads the file of `--body`.
    ///
    /// # Errors
    /// Every mistake at once.
    pub(crate) fn new(options: Options) -> Result<Self, Mistakes> {
        let Options { command, server, load, mut jobs, report } = options;
        let mut mistakes = Mistakes::default();
        let asked = Asked::new(&command, &mut mistakes);
        server.check(&mut mistakes);
        load.check(&mut mistakes);
        jobs.check(&mut mistakes);
        let slo = mistakes.keep(Slo::parse(&report.slo).map_err(|error| format!("--slo: {error}")));
        let defaults = mistakes.keep(Slo::parse(asked.slo));
        let always = mistakes.keep(Slo::parse(slo::ALWAYS));
        let target = mistakes.keep(Target::parse(&server.url).map_err(|error| format!("--url: {error}")));
        let body = mistakes.keep(load.read_body());
        let (Some(slo), Some(defaults), Some(always), Some(target), Some(body), true) =
            (slo, defaults, always, target, body, mistakes.is_empty())
        else {
            return Err(mistakes);
        };
        if let Command::Run { concurrency, .. } = command {
            jobs.followers = concurrency;
        }
        Ok(Self {
            title: asked.title,
            profile: asked.profile,
            slo: slo.or_default(&defaults).or_default(&always),
            target,
            body,
            drain_timeout: jobs.drain_timeout.unwrap_or(asked.drain_timeout),
            server,
            load,
            jobs,
            report,
        })
    }
}

impl Asked {
    fn new(command: &Command, mistakes: &mut Mistakes) -> Self {
        let (title, profile) = profile(command, mistakes);
        let (slo, drain_timeout) = match command {
            Command::Ramp { .. } => (RAMP_SLO, DRAIN_TIMEOUT),
            Command::Preset { name: Preset::Specification, .. } => (preset::SLO, preset::DRAIN_TIMEOUT),
            _ => ("", DRAIN_TIMEOUT),
        };
        Self { title, profile, slo, drain_timeout }
    }
}

/// The title and the load of a command. Adds the mistakes in its own options.
fn profile(command: &Command, mistakes: &mut Mistakes) -> (String, Profile) {
    match command {
        Command::Constant(Steady { rate, duration }) => steady("constant", *rate, *duration, mistakes),
        Command::Soak(Steady { rate, duration }) => steady("soak", *rate, *duration, mistakes),
        Command::Steps { steps, step_duration } => {
            steps.iter().for_each(|rate| mistakes.rate("each of --steps", *rate));
            mistakes.length("--step-duration", *step_duration);
            let rates: Vec<_> = steps.iter().map(ToString::to_string).collect();
            let title = format!("steps {}/s, {} each", rates.join(", "), format_duration(*step_duration));
            (title, Profile::Phases { rates: steps.clone(), length: *step_duration })
        }
        Command::Ramp { from, growth, max_rate, step_duration } => {
            mistakes.rate("--from", *from);
            mistakes.rate("--max-rate", *max_rate);
            mistakes.check(max_rate >= from, "--max-rate must be at least --from");
            mistakes.check(*growth >= 1.01, "--growth must be at least 1.01");
            mistakes.length("--step-duration", *step_duration);
            let title =
                format!("ramp from {from}/s, times {growth} every {}", format_duration(*step_duration));
            let (from, growth, max_rate, length) = (*from, *growth, *max_rate, *step_duration);
            (title, Profile::Ramp { from, growth, max_rate, length })
        }
        Command::Run { jobs, concurrency } => {
            mistakes.check(*jobs > 0, "--jobs must be above 0");
            mistakes.number("--concurrency", *concurrency);
            let profile = Profile::Closed { jobs: *jobs, concurrency: *concurrency };
            (format!("run of {jobs} jobs, {concurrency} at once"), profile)
        }
        Command::Preset { name: Preset::Specification, duration } => {
            mistakes.length("--duration", *duration);
            let title = format!("preset specification for {}", format_duration(*duration));
            (title, preset::profile(*duration))
        }
    }
}

fn steady(name: &str, rate: f64, length: Duration, mistakes: &mut Mistakes) -> (String, Profile) {
    mistakes.rate("--rate", rate);
    mistakes.length("--duration", length);
    let title = format!("{name} {rate}/s for {}", format_duration(length));
    (title, Profile::Phases { rates: vec![rate], length })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(line: &str) -> Result<Plan, String> {
        let words = std::iter::once("tepal-loadtest").chain(line.split_whitespace()).map(Into::into);
        Plan::new(Options::read(words).unwrap()).map_err(|mistakes| mistakes.to_string())
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
        assert_eq!(plan.load.health_rate, 4.0);
    }

    #[test]
    fn a_closed_loop_has_a_follower_for_every_job_under_way() {
        assert_eq!(plan("run --concurrency 300").unwrap().jobs.followers, 300);
    }
}
