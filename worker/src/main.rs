//! `tepal-worker`: see `--help`.

use std::process::ExitCode;

use tepal_shared::process::{doctor::Command, settings::arguments, shutdown, telemetry, tls, trace};
use tepal_worker::{
    doctor,
    settings::{Args, Config},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    match start() {
        Ok(code) => code,
        Err(error) => {
            // The log may not have been started.
            telemetry::complain("tepal-worker", error.as_ref());
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<ExitCode, Failure> {
    tls::install_provider();
    let args: Args = arguments();
    let command = args.command();
    let config = Config::try_from(args)?;
    let runtime = tokio::runtime::Runtime::new()?;
    if command == Some(Command::Doctor) {
        return Ok(runtime.block_on(doctor::examine(&config)).print()?);
    }
    let log = telemetry::start("worker", &config.common.log)?;
    let ended = runtime.block_on(serve(config));
    // Nobody needs the result of a computation that still runs then.
    runtime.shutdown_background();
    drop(log);
    ended?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(config: Config) -> Result<(), Failure> {
    let spans = trace::start("worker", config.common.trace.as_ref())?;
    let shutdown = shutdown::on_signal()?;
    let ended = tepal_worker::run(config, shutdown).await;
    spans.finish().await;
    ended?;
    Ok(())
}
