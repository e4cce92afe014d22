//! Progress on standard error, one line a second. A terminal shows the last line only, anything else gets all of them.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::measure::latency::Percentiles;
use crate::measure::recorder::Recorder;
use crate::measure::timeline::Window;

/// Shows the numbers of every second until the task is aborted.
pub(crate) async fn run(recorder: Recorder, quiet: bool) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let window = recorder.close_window();
        if !quiet {
            show(&line(&window));
        }
    }
}

/// Ends the progress line of a terminal.
pub(crate) fn finish(quiet: bool) {
    if !quiet && io::stderr().is_terminal() {
        let _ = writeln!(io::stderr());
    }
}

/// Prints a sentence on its own line.
pub(crate) fn say(sentence: &str, quiet: bool) {
    if !quiet {
        let start = if io::stderr().is_terminal() { "\r\x1b[2K" } else { "" };
        let _ = writeln!(io::stderr(), "{start}{sentence}");
    }
}

/// Ignores errors: a closed terminal must not end a run. Switches wrapping off, because a wrapped line cannot be overwritten.
fn show(line: &str) {
    let mut out = io::stderr().lock();
    let _ = if out.is_terminal() {
        write!(out, "\r\x1b[2K\x1b[?7l{line}\x1b[?7h").and_then(|()| out.flush())
    } else {
        writeln!(out, "{line}")
    };
}

fn line(window: &Window) -> String {
    let rate = |count: u64| window.per_second(count);
    format!(
        "{:>6.0}s  submit {:.0}/{:.0} per s  p99 ms: submit {} get {} health {}  ended {:.0}/s  backlog {}  errors {}",
        window.start + window.seconds,
        rate(window.accepted),
        rate(window.intended),
        p99(window.submit),
        p99(window.get),
        p99(window.health),
        rate(window.ended),
        window.backlog,
        window.errors,
    )
}

fn p99(percentiles: Option<Percentiles>) -> String {
    percentiles.map_or("-".to_owned(), |percentiles| format!("{:.1}", percentiles.p99_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_achieved_and_intended_rates() {
        let submit = Some(Percentiles { count: 50, p50_ms: 1.0, p95_ms: 2.0, p99_ms: 3.25, max_ms: 4.0 });
        let window = Window {
            start: 4.0,
            seconds: 2.0,
            intended: 200,
            accepted: 100,
            backlog: 7,
            submit,
            ..Default::default()
        };
        let line = line(&window);
        assert!(line.contains("6s  submit 50/100 per s") && line.contains("submit 3.2 get -"), "{line}");
        assert!(line.ends_with("ended 0/s  backlog 7  errors 0"), "{line}");
    }
}
