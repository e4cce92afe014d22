//! `tepal-worker`: see `--help`.

use std::process::ExitCode;

use tepal_shared::process::{
    service::{self, Failure, Service},
    settings::arguments,
};
use tepal_worker::{
    doctor,
    settings::{Args, Command, Config},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    service::main("tepal-worker", start)
}

fn start() -> Result<ExitCode, Failure> {
    let args: Args = arguments();
    let command = args.command();
    if let Some(Command::Model(command)) = command {
        return service::block_on(async { Ok(command.run().await?) });
    }
    let config = Config::try_from(args)?;
    if matches!(command, Some(Command::Doctor)) {
        return service::block_on(async { Ok(doctor::examine(&config).await.print()?) });
    }
    let (log, trace) = (config.common.log.clone(), config.common.trace.clone());
    let service = Service { component: "worker", log: &log, trace: trace.as_ref() };
    service.run(async |stop| Ok(tepal_worker::run(config, stop).await?))
}
