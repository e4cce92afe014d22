//! `tepal-proxy`: see `--help`.

use std::process::ExitCode;

use tepal_proxy::{
    config::{Args, Command, Config},
    doctor,
};
use tepal_shared::process::{
    service::{self, Failure, Service},
    settings::arguments,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    service::main("tepal-proxy", start)
}

fn start() -> Result<ExitCode, Failure> {
    let args: Args = arguments();
    let command = args.command();
    if let Some(Command::Key(command)) = command {
        return Ok(command.run()?);
    }
    let config = Config::try_from(args)?;
    if matches!(command, Some(Command::Doctor)) {
        return service::block_on(async { Ok(doctor::examine(&config).await.print()?) });
    }
    let (log, trace) = (config.common.log.clone(), config.common.trace.clone());
    let service = Service { component: "proxy", log: &log, trace: trace.as_ref() };
    service.run(async |stop| {
        let listeners = tepal_proxy::listen(&config)?;
        Ok(tepal_proxy::run(config, listeners, stop).await?)
    })
}
