//! The main function of a service: the process around its `run`.

use std::{error::Error, process::ExitCode};

use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use super::{
    shutdown,
    telemetry::{self, LogSettings},
    tls,
    trace::{self, TraceSettings},
};

/// Why a service ended.
pub type Failure = Box<dyn Error + Send + Sync>;

/// Runs `start`. Its failure is printed to standard error, because the log may not have been started.
pub fn main(program: &str, start: impl FnOnce() -> Result<ExitCode, Failure>) -> ExitCode {
    tls::install_provider();
    start().unwrap_or_else(|error| {
        telemetry::complain(program, error.as_ref());
        ExitCode::FAILURE
    })
}

/// Runs a command to its end.
///
/// # Errors
/// When the runtime cannot be set up, and when the command fails.
pub fn block_on(command: impl Future<Output = Result<ExitCode, Failure>>) -> Result<ExitCode, Failure> {
    Runtime::new()?.block_on(command)
}

/// A service: its name in logs and traces, and how they are written.
#[derive(Clone, Copy, Debug)]
pub struct Service<'a> {
    /// Its name.
    pub component: &'static str,
    /// How logs are written.
    pub log: &'a LogSettings,
    /// Where traces go; `None` = nowhere.
    pub trace: Option<&'a TraceSettings>,
}

impl Service<'_> {
    /// Runs the service with its log and its traces until it ends. The token is cancelled at SIGTERM or Ctrl-C.
    ///
    /// # Errors
    /// When the log, the traces, the runtime or the signal handlers cannot be set up, and when `run` fails.
    pub fn run(
        self,
        run: impl AsyncFnOnce(CancellationToken) -> Result<(), Failure>,
    ) -> Result<ExitCode, Failure> {
        let runtime = Runtime::new()?;
        let log = telemetry::start(self.component, self.log)?;
        let ended = runtime.block_on(async {
            let spans = trace::start(self.component, self.trace)?;
            let ended = run(shutdown::on_signal()?).await;
            spans.finish().await;
            ended
        });
        // A computation that still runs has no use any more.
        runtime.shutdown_background();
        drop(log);
        ended.map(|()| ExitCode::SUCCESS)
    }
}
