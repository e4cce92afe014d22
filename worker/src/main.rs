//! `tepal-worker`: see `--help`.

use std::process::ExitCode;

use clap::Parser as _;
use tepal_shared::{shutdown, telemetry};
use tepal_worker::{
    config::{Args, Config},
    metrics,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[allow(clippy::print_stderr, reason = "the log may not have been started")]
            {
                eprintln!("tepal-worker: {}", telemetry::chain(error.as_ref()));
            }
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<(), Failure> {
    let config = Config::try_from(Args::parse())?;
    telemetry::start("worker", &config.common.log)?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve(config))
}

async fn serve(config: Config) -> Result<(), Failure> {
    let addr = config.metrics_addr;
    metrics::serve(addr).map_err(|error| {
        format!(
            "cannot serve metrics on {addr} ({error}); set METRICS_ADDR to a free address of this machine"
        )
    })?;
    let (trigger, shutdown) = shutdown::channel();
    tokio::spawn(async move {
        let requested = shutdown::requested().await;
        trigger.begin();
        requested
    });
    tepal_worker::run(config, shutdown).await?;
    Ok(())
}
