//! Attacks a proxy as it is shipped with every known attack, beside honest clients. Judges whether the clients were served and
//! the proxy kept within its limits.
//!
//! `make hostile SECONDS=20 ONLY=streams`. Exit status 1 when a rule was broken.

use std::io::{Write, stdout};
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::{Parser, Subcommand};
use tepal_tests::hostile::{self, Options, Report};

/// The most jobs that one listing scans.
const SMALL_JOBS: usize = 10_000;

/// Attacks on a proxy, beside honest clients.
#[derive(Parser, Debug)]
#[command(name = "tepal-hostile")]
struct Args {
    #[command(subcommand)]
    part: Option<Part>,
    /// How long each attack lasts, s
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
    /// Only these attacks; `list` shows all
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// The proxy's MAX_BODY_BYTES, bytes, one after the other
    #[arg(long, value_delimiter = ',', default_values_t = [1 << 20, 8 << 20])]
    bodies: Vec<usize>,
    /// Jobs of honest clients, a second
    #[arg(long, default_value_t = 20.0)]
    rate: f64,
    /// A page whose measured part is replaced by the table
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Subcommand, Debug)]
enum Part {
    /// Show the attacks
    List,
    /// The attacker's own process
    #[command(hide = true)]
    Attack { orders: PathBuf, summary: PathBuf },
    /// The control program
    #[command(hide = true)]
    Burn { profiles: PathBuf },
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    match &args.part {
        Some(Part::List) => {
            hostile::attacks().iter().for_each(|(name, what)| say(&format!("{name}: {what}")));
            ExitCode::SUCCESS
        }
        Some(Part::Attack { orders, summary }) => {
            hostile::attack(orders, summary).await;
            ExitCode::SUCCESS
        }
        Some(Part::Burn { profiles }) => {
            hostile::burn(profiles);
            ExitCode::SUCCESS
        }
        None => run(&args).await,
    }
}

async fn run(args: &Args) -> ExitCode {
    let Ok(program) = std::env::current_exe() else { return ExitCode::from(2) };
    let options = Options {
        seconds: args.seconds,
        is_short: false,
        only: args.only.clone(),
        bodies: args.bodies.clone(),
        small_jobs: SMALL_JOBS,
        rate: args.rate,
        program,
        made: made(args),
    };
    let report = match hostile::run(&options, |report| say(&report.to_string())).await {
        Ok(report) => report,
        Err(why) => {
            say(&why);
            return ExitCode::from(2);
        }
    };
    say(&report.to_string());
    if let Some(page) = &args.out
        && let Err(error) = report.write_into(page)
    {
        say(&format!("{}: {error}", page.display()));
        return ExitCode::from(2);
    }
    status(&report)
}

fn status(report: &Report) -> ExitCode {
    ExitCode::from(u8::from(!report.holds()))
}

/// A closed pipe does not change the verdict.
fn say(text: &str) {
    let _ = writeln!(stdout(), "{text}");
}

/// Command, machine and date.
fn made(args: &Args) -> String {
    let only = if args.only.is_empty() { String::new() } else { format!(" ONLY={}", args.only.join(",")) };
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().ok();
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
    };
    let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = processor.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    format!(
        "`make hostile SECONDS={}{only}`, {}, {} processors ({}), Linux {}, {}.",
        args.seconds,
        said("date", &["--utc", "+%Y-%m-%d %H:%M UTC"]),
        std::thread::available_parallelism().map_or(1, usize::from),
        processor.map_or("unknown", |(_, name)| name),
        said("uname", &["-r"]),
        said("redis-server", &["--version"]).split(" sha=").next().unwrap_or_default(),
    )
}
