//! A binary of the workspace as a child process, with only the settings of the test, and with its logs captured.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{Logs, Process};
use crate::wait::poll;

/// Variables a child keeps from the test's own environment. Everything else is cleared, so that a developer's
/// `REDIS_URL` cannot leak into a test, nor a `RUST_LOG` silence the logs that the history checker reads.
const INHERITED: [&str; 7] =
    ["PATH", "HOME", "TMPDIR", "LANG", "LD_LIBRARY_PATH", "LLVM_PROFILE_FILE", "RUST_BACKTRACE"];

/// Where a child's stdout and stderr go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sink {
    /// To the [`Logs`].
    #[default]
    Logs,
    /// To `/dev/null`: a flood of requests logs more than a harness should read.
    Nothing,
    /// To a full disk.
    FullDisk,
    /// To a pipe without a reader.
    ClosedPipe,
    /// To a pipe without a reader.
    UnreadPipe,
}

/// How to start a [`Service`].
#[derive(Clone, Debug)]
pub struct ServiceBuilder {
    name: String,
    program: PathBuf,
    args: Vec<String>,
    env: Vec<(String, String)>,
    sink: Sink,
}

/// A running (or stopped, or killed) child with its logs. It is killed when dropped.
#[derive(Debug)]
pub struct Service {
    spec: ServiceBuilder,
    logs: Logs,
    process: Mutex<Arc<Process>>,
}

impl ServiceBuilder {
    /// Sets one variable; a later value for the same name wins.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl ToString) -> Self {
        self.env.push((name.to_owned(), value.to_string()));
        self
    }

    /// Sets several variables.
    #[must_use]
    pub fn envs(self, pairs: &[(&str, &str)]) -> Self {
        pairs.iter().fold(self, |builder, (name, value)| builder.env(name, value))
    }

    /// Adds one command line argument.
    #[must_use]
    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    /// Sets where the output goes.
    #[must_use]
    pub fn sink(mut self, sink: Sink) -> Self {
        self.sink = sink;
        self
    }

    /// Sets how many files the process may have open: now, and at most if it raises its limit.
    #[must_use]
    pub fn open_files(mut self, soft: u64, hard: u64) -> Self {
        let program = std::mem::replace(&mut self.program, "prlimit".into());
        self.args.splice(0..0, [format!("--nofile={soft}:{hard}"), program.display().to_string()]);
        self
    }

    /// Starts the process. Does not wait for it to be ready.
    ///
    /// # Panics
    /// When the program cannot be started.
    #[must_use]
    pub fn start(self) -> Service {
        let logs = Logs::default();
        let process = Mutex::new(Arc::new(self.spawn(&logs)));
        Service { spec: self, logs, process }
    }

    fn spawn(&self, logs: &Logs) -> Process {
        let mut command = Command::new(&self.program);
        let inherited = INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
        command.args(&self.args).env_clear().envs(inherited).envs(self.env.iter().cloned());
        command.stdin(Stdio::null());
        let (output, writer) = std::io::pipe().expect("a pipe for the child's output");
        let handle = || -> Stdio { writer.try_clone().expect("another handle on the pipe").into() };
        let full = || -> Stdio { File::options().write(true).open("/dev/full").expect("/dev/full").into() };
        match self.sink {
            Sink::FullDisk => command.stdout(full()).stderr(full()),
            Sink::Nothing => command.stdout(Stdio::null()).stderr(Stdio::null()),
            Sink::Logs | Sink::ClosedPipe | Sink::UnreadPipe => command.stdout(handle()).stderr(handle()),
        };
        let process = Process::spawn(&self.name, &mut command)
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", self.program.display()));
        match self.sink {
            Sink::Logs => logs.follow(output),
            Sink::UnreadPipe => logs.ignore(output),
            Sink::FullDisk | Sink::Nothing | Sink::ClosedPipe => drop(output),
        }
        process
    }
}

impl Service {
    /// One of the workspace's binaries, e.g. `tepal-proxy`.
    ///
    /// # Panics
    /// When it has not been built, see [`binary_path`].
    #[must_use]
    pub fn binary(name: &str) -> ServiceBuilder {
        Self::program(name, &binary_path(name))
    }

    /// Any program; `name` is used in panic texts.
    #[must_use]
    pub fn program(name: &str, program: &Path) -> ServiceBuilder {
        ServiceBuilder {
            name: name.to_owned(),
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            sink: Sink::Logs,
        }
    }

    /// The current process: a new one after each [`restart`](Self::restart).
    #[must_use]
    pub fn process(&self) -> Arc<Process> {
        Arc::clone(&self.process.lock().expect("no panic while held"))
    }

    /// What the service printed so far, over all restarts.
    #[must_use]
    pub fn logs(&self) -> Logs {
        self.logs.clone()
    }

    /// Waits for a line that contains `pattern` (plain text) and returns it; one from before a restart
    /// counts.
    ///
    /// # Panics
    /// When there is none after `within`, or when the process ends without printing one.
    pub async fn wait_for_log(&self, pattern: &str, within: Duration) -> String {
        let process = self.process();
        let found = poll(within, || async {
            let ended = !process.is_running();
            if ended {
                self.logs.settled().await;
            }
            match self.logs.find(pattern) {
                Some(line) => Ok(Some(line)),
                None if ended => Ok(None),
                None => Err(format!("{} lines, none with it", self.logs.lines().len())),
            }
        });
        match found.await {
            Ok(Some(line)) => line,
            Ok(None) => {
                panic!("{process} never printed {pattern:?}. Its last lines:\n{}", self.logs.tail(40))
            }
            Err(gave_up) => panic!(
                "waited for {pattern:?} in the log of {process}, {gave_up}. Its last lines:\n{}",
                self.logs.tail(40)
            ),
        }
    }

    /// See [`Process::pid`].
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process().pid()
    }

    /// See [`Process::is_running`].
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.process().is_running()
    }

    /// SIGKILL; returns when the process is gone.
    pub fn kill9(&self) {
        self.process().kill9();
    }

    /// SIGTERM, for an orderly end; see [`wait_exit`](Self::wait_exit).
    pub fn sigterm(&self) {
        self.process().sigterm();
    }

    /// SIGSTOP: freezes the process; returns when it is frozen.
    pub fn sigstop(&self) {
        self.process().sigstop();
    }

    /// SIGCONT: lets a frozen process continue.
    pub fn sigcont(&self) {
        self.process().sigcont();
    }

    /// Waits for the process to end by itself; its logs are complete afterwards.
    ///
    /// # Panics
    /// When it still runs after `within`.
    pub async fn wait_exit(&self, within: Duration) -> ExitStatus {
        let status = self.process().wait_exit(within).await;
        self.logs.settled().await;
        status
    }

    /// Kills the process if it still runs, and starts it again with the same settings and the same log buffer.
    pub fn restart(&self) {
        let mut process = self.process.lock().expect("no panic while held");
        process.kill9();
        *process = Arc::new(self.spec.spawn(&self.logs));
    }
}

/// Where cargo put a binary of this workspace: beside the test executable's `deps` directory.
///
/// # Panics
/// When it is not there: cargo builds no binaries of *other* packages for a test.
#[must_use]
pub fn binary_path(name: &str) -> PathBuf {
    let exe = std::env::current_exe().expect("the test executable has a path");
    let profile = exe.ancestors().skip(1).find(|dir| !dir.ends_with("deps")).expect("it lies in a directory");
    let path = profile.join(name).with_extension(std::env::consts::EXE_EXTENSION);
    assert!(
        path.is_file(),
        "{} is missing: run `cargo build --workspace --bins` or `make test`",
        path.display()
    );
    path
}
