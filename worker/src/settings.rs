//! The worker's settings. Each part has its own, in a file `settings.rs` in its folder; here they become one command line and
//! one list of mistakes.

use std::net::SocketAddr;

use clap::{Parser, Subcommand};
use tepal_shared::{
    process::{
        doctor,
        settings::{ConfigError, Mistakes},
    },
    settings::{Common, CommonArgs},
};

use crate::{
    backend::{
        self,
        settings::{BackendArgs, BackendKind, BackendSettings},
    },
    fetch::settings::{FetchArgs, FetchSettings},
    model_command::ModelCommand,
    models::{ModelsArgs, ModelsSettings},
    run::settings::{RunArgs, RunSettings},
};

/// Claims jobs from the queue, calls the model with batches of them, and settles each outcome.
///
/// Set each setting with its flag or with the environment variable beside it.
#[derive(Parser, Clone, Debug)]
#[command(
    name = "tepal-worker",
    version,
    override_usage = "tepal-worker [OPTIONS] [doctor]\n       tepal-worker model inspect [PATH]",
    disable_help_subcommand = true
)]
pub struct Args {
    /// What to do; without it, the worker runs
    #[arg(value_enum, value_name = "COMMAND")]
    command: Option<doctor::Command>,
    #[command(subcommand)]
    model: Option<ModelSubcommand>,
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    fetch: FetchArgs,
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    models: ModelsArgs,
    #[command(flatten)]
    backend: BackendArgs,
    /// Address of /metrics and /livez
    #[arg(
        long,
        env = "METRICS_ADDR",
        default_value = "0.0.0.0:9100",
        value_name = "ADDR",
        help_heading = "Service"
    )]
    metrics_addr: String,
}

#[derive(Subcommand, Clone, Debug)]
enum ModelSubcommand {
    /// Look at models
    Model(Box<ModelCommand>),
}

/// A command that runs instead of the worker.
#[derive(Clone, Debug)]
pub enum Command {
    /// Checks Redis and the model.
    Doctor,
    /// Looks at models.
    Model(Box<ModelCommand>),
}

/// [`Args`] after checking.
#[derive(Clone, Debug)]
pub struct Config {
    /// The settings of both services.
    pub common: Common,
    /// This process's name among the workers.
    pub worker_id: String,
    /// This machine's name.
    pub host: String,
    /// Which models it serves.
    pub models: ModelsSettings,
    /// Settings of the lanes.
    pub fetch: FetchSettings,
    /// Settings of a running batch.
    pub run: RunSettings,
    /// Settings of the backend.
    pub backend: BackendSettings,
    /// Address of /metrics and /livez.
    pub metrics_addr: SocketAddr,
}

impl Args {
    /// What to do instead of running.
    #[must_use]
    pub fn command(&self) -> Option<Command> {
        match (&self.model, self.command) {
            (Some(ModelSubcommand::Model(command)), _) => Some(Command::Model(command.clone())),
            (None, Some(doctor::Command::Doctor)) => Some(Command::Doctor),
            (None, None) => None,
        }
    }
}

impl TryFrom<Args> for Config {
    type Error = ConfigError;

    /// Checks everything before it returns an error, so that one start reports every mistake.
    fn try_from(args: Args) -> Result<Self, ConfigError> {
        let mut mistakes = Mistakes::default();
        let run = args.run.check(&mut mistakes);
        let backend = args.backend.check(run.max_result_bytes, &mut mistakes);
        // An unknown backend is reported when the model is loaded.
        let is_served =
            |word: Option<&str>| backend::kind_named(&backend, word).map_or(true, BackendKind::is_server);
        let common = args.common.check(is_served, &mut mistakes);
        let lease = common.as_ref().map(|common| common.policy.lease);
        let fetch = args.fetch.check(lease, &mut mistakes);
        let mut models = args.models.check(&mut mistakes);
        if let Some(common) = common.as_ref().filter(|_| backend.kind.is_server()) {
            models.may_lack_folders(common);
        }
        let fallback_addr = SocketAddr::from(([0, 0, 0, 0], 9100));
        let metrics_addr = mistakes.parsed("METRICS_ADDR", &args.metrics_addr, fallback_addr);
        let host = host_name();
        let worker_id = format!("{host}-{}-{:06x}", std::process::id(), random_suffix());
        let config =
            common.map(|common| Self { common, worker_id, host, models, fetch, run, backend, metrics_addr });
        mistakes.unless_any(config)
    }
}

/// The host name from the kernel, or `worker` if it has none.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "worker".to_owned() } else { name.to_owned() }
}

/// Distinguishes workers that have the same process id in different containers.
fn random_suffix() -> u32 {
    let bytes = uuid::Uuid::new_v4().into_bytes();
    u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]])
}
