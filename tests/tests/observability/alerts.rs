//! The rules and alerts: that Prometheus accepts them, that their unit tests pass, that each alert has some, and that each
//! has its section in the guide.

use std::collections::BTreeSet;
use std::process::Command;

use crate::promql::selectors;
use crate::{file, guide, root};

/// An alert as the rules file has it.
pub(crate) struct Alert {
    pub(crate) name: String,
    pub(crate) expr: String,
    runbook: String,
    severity: String,
}

/// Every alert of compose/alerts.yml. All its expressions stand on one line.
pub(crate) fn alerts() -> Vec<Alert> {
    let rules = file("compose/alerts.yml");
    let entries = rules.split("- alert: ").skip(1);
    let alert = |entry: &str| {
        let value = |key: &str| {
            let line = entry.lines().find_map(|line| line.trim().strip_prefix(key));
            line.unwrap_or_else(|| panic!("no {key} in {entry}")).trim().to_owned()
        };
        let name = entry.lines().next().unwrap().to_owned();
        Alert { name, expr: value("expr: "), runbook: value("runbook: "), severity: value("labels: ") }
    };
    entries.map(alert).collect()
}

fn promtool(args: &[&str]) {
    let output = Command::new("promtool").args(args).current_dir(root()).output().unwrap_or_else(|error| {
        panic!("cannot start promtool: {error}: install it with `apt-get install prometheus`")
    });
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "promtool {args:?}:\n{}", text.concat());
}

#[test]
fn prometheus_accepts_its_configuration() {
    promtool(&["check", "config", "compose/prometheus.yml"]);
    promtool(&["check", "rules", "compose/rules.yml", "compose/alerts.yml"]);
}

#[test]
fn the_rules_pass_their_unit_tests() {
    promtool(&["test", "rules", "compose/alerts.test.yml"]);
}

#[test]
fn every_alert_has_unit_tests_in_which_it_fires_and_in_which_it_does_not() {
    let tests = file("compose/alerts.test.yml");
    let cases: Vec<(&str, bool)> = tests
        .split("alertname: ")
        .skip(1)
        .map(|rest| {
            let name: &str = rest.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap();
            (name, rest.lines().nth(1).is_some_and(|line| line.trim().starts_with("exp_alerts:")))
        })
        .collect();
    for alert in alerts() {
        let of_alert = cases.iter().filter(|(name, _)| *name == alert.name);
        let fires: BTreeSet<bool> = of_alert.map(|(_, fires)| *fires).collect();
        assert_eq!(fires, BTreeSet::from([false, true]), "{} lacks a case", alert.name);
    }
}

/// The kinds of processes that export what an expression reads.
fn exporters(expr: &str) -> BTreeSet<String> {
    let rules = file("compose/rules.yml");
    let metrics = guide::rows("Metrics");
    let of = |selector: String| {
        let name = selector.split('{').next().unwrap().to_owned();
        if let Some(job) = selector.strip_prefix("up{job=\"tepal-") {
            return BTreeSet::from([job.split('"').next().unwrap().to_owned()]);
        }
        if let Some((_, rule)) = rules.split_once(&format!("- record: {name}\n")) {
            return exporters(rule.split("- record:").next().unwrap());
        }
        let row = metrics.iter().find(|row| row[0] == name).unwrap_or_else(|| panic!("no metric {name}"));
        if row[2] == "both" { BTreeSet::new() } else { BTreeSet::from([row[2].clone()]) }
    };
    selectors(expr).into_iter().flat_map(of).collect()
}

#[test]
fn an_alert_whose_series_vanish_leaves_another_one_that_fires() {
    let alerts = alerts();
    let covered = |kind: &str| {
        let absent = format!("absent(max_over_time(up{{job=\"tepal-{kind}\"}}");
        alerts.iter().any(|alert| alert.expr.contains(&absent))
    };
    for alert in &alerts {
        for kind in exporters(&alert.expr) {
            assert!(covered(&kind), "{} is silent when the last {kind} is gone", alert.name);
        }
    }
    assert_eq!(exporters("tepal:job_failure_ratio:rate5m"), BTreeSet::from(["worker".to_owned()]));
}

#[test]
fn every_alert_has_its_section_in_the_guide() {
    let alerts = alerts();
    assert!(alerts.len() > 10);
    for alert in &alerts {
        let expected = format!("docs/operations.md#{}", alert.name.to_lowercase());
        assert_eq!(alert.runbook, expected);
        let severities = ["{ severity: critical }", "{ severity: warning }"];
        assert!(severities.contains(&alert.severity.as_str()), "{}: {}", alert.name, alert.severity);
    }
    let named: BTreeSet<String> = alerts.into_iter().map(|alert| alert.name).collect();
    let sections: BTreeSet<String> =
        guide::sections().into_iter().filter(|title| title.starts_with("Tepal")).collect();
    assert_eq!(sections, named, "left: docs/operations.md, right: compose/alerts.yml");
}

#[test]
fn the_overview_of_the_guide_has_every_alert_with_its_severity() {
    let severity = |alert: &Alert| format!("{{ severity: {} }}", guide::alerts()[&alert.name]);
    let alerts = alerts();
    assert_eq!(guide::alerts().len(), alerts.len());
    for alert in &alerts {
        assert_eq!(severity(alert), alert.severity, "{}", alert.name);
    }
}
