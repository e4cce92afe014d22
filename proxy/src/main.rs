//! `tepal-proxy`: see `--help`.

use std::process::ExitCode;

use clap::Parser as _;
use tepal_proxy::config::{Args, Config};
use tepal_shared::{shutdown, telemetry};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[allow(clippy::print_stderr, reason = "the log may not have been started")]
            {
                eprintln!("tepal-proxy: {}", telemetry::chain(error.as_ref()));
            }
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<(), Failure> {
    let config = Config::try_from(Args::parse())?;
    telemetry::start("proxy", &config.common.log)?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve(config))
}

async fn serve(config: Config) -> Result<(), Failure> {
    let listener = tepal_proxy::bind(config.listen_addr).await?;
    let (trigger, shutdown) = shutdown::channel();
    tokio::spawn(async move {
        let requested = shutdown::requested().await;
        trigger.begin();
        requested
    });
    tepal_proxy::run(config, listener, shutdown).await?;
    Ok(())
}
