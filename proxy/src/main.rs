//! `tepal-proxy`: see `--help`.

use std::process::ExitCode;

use tepal_proxy::{
    config::{Args, Command, Config},
    doctor,
};
use tepal_shared::process::{settings::arguments, shutdown, telemetry, tls, trace};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    match start() {
        Ok(code) => code,
        Err(error) => {
            // The log may not have started yet.
            telemetry::complain("tepal-proxy", error.as_ref());
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<ExitCode, Failure> {
    tls::install_provider();
    let args: Args = arguments();
    let command = args.command();
    if let Some(Command::Key(command)) = command {
        return Ok(command.run()?);
    }
    let config = Config::try_from(args)?;
    let runtime = tokio::runtime::Runtime::new()?;
    if matches!(command, Some(Command::Doctor)) {
        return Ok(runtime.block_on(doctor::examine(&config)).print()?);
    }
    let log = telemetry::start("proxy", &config.common.log)?;
    let ended = runtime.block_on(serve(config));
    runtime.shutdown_background();
    drop(log);
    ended?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(config: Config) -> Result<(), Failure> {
    let spans = trace::start("proxy", config.common.trace.as_ref())?;
    let listener = tepal_proxy::bind(config.listen_addr).await?;
    let shutdown = shutdown::on_signal()?;
    let ended = tepal_proxy::run(config, listener, shutdown).await;
    spans.finish().await;
    ended?;
    Ok(())
}
