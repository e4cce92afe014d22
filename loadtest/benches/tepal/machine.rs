//! The conditions of a run: machine, versions, date.

use std::process::Command;
use std::time::SystemTime;

/// The start of a run.
pub(crate) struct Started {
    pub(crate) at: String,
    /// The load average of the minute before.
    pub(crate) load: String,
}

impl Started {
    /// The current time and load.
    pub(crate) fn now() -> Self {
        let at = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let load = read("/proc/loadavg").split_whitespace().next().unwrap_or("?").to_owned();
        Self { at: at.replace('T', " ").trim_end_matches('Z').to_owned() + " UTC", load }
    }
}

/// One line for the page: processor, cores, memory, system.
pub(crate) fn machine() -> String {
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("an unknown processor", |(_, name)| name.trim());
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kilobytes =
        read("/proc/meminfo").lines().next().and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    let gigabytes = kilobytes.map_or(0, |kilobytes: u64| kilobytes / 1_000_000);
    format!(
        "{model}, {cores} cores, {gigabytes} GB, {} {}",
        first_line("uname", &["-s"]),
        first_line("uname", &["-r"])
    )
}

/// One line for the page: the versions of Tepal, the compiler, Redis and wrk.
pub(crate) fn versions() -> String {
    let redis = first_line("redis-server", &["--version"]);
    let redis = redis.split_whitespace().find_map(|word| word.strip_prefix("v=")).unwrap_or("?").to_owned();
    let wrk = first_line("wrk", &["--version"]);
    let wrk: Vec<_> = wrk.split_whitespace().take(2).collect();
    let rustc = first_line("rustc", &["--version"]);
    let rustc: Vec<_> = rustc.split_whitespace().take(2).collect();
    format!("Tepal {}, {}, Redis {redis}, {}", commit(), rustc.join(" "), wrk.join(" "))
}

fn commit() -> String {
    let version = env!("CARGO_PKG_VERSION");
    match first_line("git", &["describe", "--always", "--dirty"]) {
        commit if commit.is_empty() => version.to_owned(),
        commit => format!("{version} ({commit})"),
    }
}

/// The first line of a program's output; empty if the program is missing.
fn first_line(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or_default().to_owned()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
