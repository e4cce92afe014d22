//! Injects every fault of the harness into a running Tepal, and proves from the history that its promises held.
//!
//! `make chaos SECONDS=600 SEED=1`. Exit status 1 when a promise was broken.

use std::io::{Write, stdout};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Parser, ValueEnum};
use tepal_tests::chaos::{self, Faults, Options};
use tepal_tests::redis::Fsync;

/// Fault run over real processes: proxies, workers, Redis and model servers.
#[derive(Parser, Debug)]
#[command(name = "tepal-chaos")]
struct Args {
    /// How long faults are injected, s
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Decides the jobs and the order of the faults; by default taken from the clock
    #[arg(long)]
    seed: Option<u64>,
    /// Jobs submitted a second
    #[arg(long, default_value_t = 250.0)]
    rate: f64,
    /// When Redis syncs its append-only file
    #[arg(long, value_enum, default_value_t = Sync::Always)]
    fsync: Sync,
    /// The faults to inject; with `none`, nothing may be repaired either
    #[arg(long, value_enum, default_value_t = Wrong::All)]
    faults: Wrong,
    /// Inject only these faults of model servers, such as `model server: refuses large batches`; jobs then have no time
    /// limits of their own, and none may fail for them
    #[arg(long)]
    only: Vec<String>,
    /// Folder for logs and history; by default a new one in the temporary directory
    #[arg(long)]
    dir: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Sync {
    Always,
    Everysec,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Wrong {
    None,
    RollingRestart,
    All,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let seed = args.seed.unwrap_or(seconds);
    let dir = args.dir.unwrap_or_else(|| std::env::temp_dir().join(format!("tepal-chaos-{seed}-{seconds}")));
    let mut options = Options::new(Duration::from_secs(args.seconds), seed, dir);
    options.rate = args.rate;
    options.fsync = match args.fsync {
        Sync::Always => Fsync::Always,
        Sync::Everysec => Fsync::EverySec,
    };
    let options = options.with(match args.faults {
        Wrong::None => Faults::None,
        Wrong::RollingRestart => Faults::RollingRestart,
        Wrong::All => Faults::All,
    });
    let only: Vec<&str> = args.only.iter().map(String::as_str).collect();
    let options = if only.is_empty() { options } else { options.only(&only) };
    let report = chaos::run(&options).await;
    // A closed pipe takes nothing from the verdict.
    let _ = writeln!(stdout(), "{report}");
    ExitCode::from(u8::from(!report.holds()))
}
