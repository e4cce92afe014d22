//! Real child processes: spawned, signalled, and killed when dropped, always by the pid of our own child.
//!
//! [`Process`] is any child; [`Service`] is one of the workspace's binaries with its settings and logs;
//! [`Proxy`] and [`Worker`] are services that are ready to be used.

mod logs;
mod parts;
mod service;

use std::fmt;
use std::io;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

pub use logs::Logs;
pub use parts::{Proxy, Worker};
pub use service::{Service, ServiceBuilder, Sink, binary_path};

use crate::wait::poll;

/// A signal a test may send. SIGKILL is [`Process::kill9`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: stop in good order.
    Term,
    /// SIGINT: what Ctrl-C sends.
    Int,
    /// SIGSTOP: freeze.
    Stop,
    /// SIGCONT: go on.
    Cont,
}

impl Signal {
    /// The name the `kill` command knows.
    fn name(self) -> &'static str {
        match self {
            Self::Term => "TERM",
            Self::Int => "INT",
            Self::Stop => "STOP",
            Self::Cont => "CONT",
        }
    }
}

/// A child process, killed with SIGKILL when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: u32,
    child: Mutex<Child>,
}

impl Process {
    /// Starts `command`; `name` is used in panic texts.
    ///
    /// # Errors
    /// When the program cannot be started, for one because it does not exist.
    pub fn spawn(name: &str, command: &mut Command) -> io::Result<Self> {
        let child = command.spawn()?;
        Ok(Self { name: name.to_owned(), pid: child.id(), child: Mutex::new(child) })
    }

    /// The process id, also after the process has ended.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The exit status once the process has ended, `None` while it runs.
    #[must_use]
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.child().try_wait().expect("a child of ours can be waited for")
    }

    /// Whether the process has not ended yet (a stopped one runs, too).
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.exit_status().is_none()
    }

    /// SIGKILL; returns when the process is gone. Does nothing if it was already.
    pub fn kill9(&self) {
        let mut child = self.child();
        child.kill().expect("a child of ours can be killed");
        child.wait().expect("a killed child ends");
    }

    /// SIGTERM.
    pub fn sigterm(&self) {
        self.signal(Signal::Term);
    }

    /// SIGSTOP; returns when every thread of the process is stopped.
    pub fn sigstop(&self) {
        self.signal(Signal::Stop);
        let started = Instant::now();
        while !all_threads_stopped(self.pid) {
            assert!(started.elapsed() < Duration::from_secs(5), "{} did not stop after SIGSTOP", self.name);
            std::thread::yield_now();
        }
    }

    /// SIGCONT.
    pub fn sigcont(&self) {
        self.signal(Signal::Cont);
    }

    /// Sends a signal with the shell's own `kill`: this workspace forbids `unsafe`, which the system call
    /// needs.
    ///
    /// # Panics
    /// When the process has ended: its pid may belong to another one by now.
    pub fn signal(&self, signal: Signal) {
        let mut child = self.child(); // Held, so that the child is not reaped and its pid not reused meanwhile.
        let ended = child.try_wait().expect("a child of ours can be waited for");
        assert!(ended.is_none(), "{} has already ended ({ended:?}), no SIG{} sent", self.name, signal.name());
        let pid = self.pid.to_string();
        let sent = Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", signal.name(), &pid]).status();
        assert!(sent.is_ok_and(|status| status.success()), "SIG{} to {} failed", signal.name(), self.name);
    }

    /// Waits for the process to end by itself.
    ///
    /// # Panics
    /// When it still runs after `within`.
    pub async fn wait_exit(&self, within: Duration) -> ExitStatus {
        match poll(within, || async { self.exit_status().ok_or("still running") }).await {
            Ok(status) => status,
            Err(gave_up) => panic!("waited for {} (pid {}) to end, {gave_up}", self.name, self.pid),
        }
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let mut child = self.child();
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.exit_status() {
            None => write!(f, "{} (pid {}, running)", self.name, self.pid),
            Some(status) => write!(f, "{} (pid {}, ended: {status})", self.name, self.pid),
        }
    }
}

/// Reads the thread states from `/proc`, see proc(5); where there is no `/proc`, trusts the signal.
fn all_threads_stopped(pid: u32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return true;
    };
    threads.flatten().all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // The name, in parentheses, may hold spaces; the state is the first word after it.
        stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(['T', 't', 'Z', 'X']))
    })
}
