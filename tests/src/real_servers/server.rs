//! A real server as a child process: `tests/models/servers`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::ports::free_port;
use crate::process::Service;

/// A program that speaks the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// NVIDIA's server, as the package nvidia-pytriton has it.
    Triton,
    /// Seldon's server.
    MlServer,
    /// KServe's Python server.
    KServe,
}

/// A running server. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) kind: Kind,
    pub(super) port: u16,
    service: Service,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Triton, Self::MlServer, Self::KServe];

    /// The name of its virtual environment.
    fn environment(self) -> &'static str {
        match self {
            Self::Triton => "triton",
            Self::MlServer => "mlserver",
            Self::KServe => "kserve",
        }
    }

    fn script(self) -> &'static str {
        match self {
            Self::Triton => "triton.py",
            Self::MlServer => "mlserver_models.py",
            Self::KServe => "kserve_models.py",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Triton => "Triton",
            Self::MlServer => "MLServer",
            Self::KServe => "KServe",
        })
    }
}

impl Server {
    /// Starts it on a free port. Does not wait for it.
    pub(super) fn start(kind: Kind, folder: &Path) -> Self {
        let environment = folder.join(kind.environment());
        let scripts = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models/servers");
        let libraries = std::fs::read_to_string(environment.join("libdir")).unwrap_or_default();
        let port = free_port();
        let mut program = Service::program(&kind.to_string(), &environment.join("bin/python"))
            // Triton's stub of Python loads the library of the Python that runs, and no other.
            .env("LD_LIBRARY_PATH", libraries.trim())
            .env("PYTHONPATH", scripts.display())
            .env("PYTHONDONTWRITEBYTECODE", 1)
            .arg(&scripts.join(kind.script()).display().to_string())
            .arg(&port.to_string())
            .arg(&free_port().to_string());
        if kind != Kind::KServe {
            program = program.arg(&free_port().to_string());
        }
        Self { kind, port, service: program.start() }
    }

    /// Kills it with all its processes: Triton's server is a child of the Python program, and would outlive it.
    pub(super) fn kill(&self) {
        let family = descendants(self.service.pid());
        self.service.kill9();
        let pids = family.iter().map(u32::to_string);
        // Some have ended by themselves.
        let _ = Command::new("kill").arg("-9").args(pids).stderr(Stdio::null()).status();
    }

    /// Kills it, and starts it again on its port.
    pub(super) fn restart(&self) {
        self.kill();
        self.service.restart();
    }

    /// Its last lines, for a report of a failure.
    pub(super) fn tail(&self) -> String {
        self.service.logs().tail(20)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.service.is_running() {
            self.kill();
        }
    }
}

/// The processes that a process has started, and those that they have (proc(5), `children`).
fn descendants(pid: u32) -> Vec<u32> {
    let mut all = Vec::new();
    let mut next = vec![pid];
    while let Some(pid) = next.pop() {
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        for thread in threads {
            let text = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            let children = text.split_whitespace().filter_map(|child| child.parse::<u32>().ok());
            next.extend(children.clone());
            all.extend(children);
        }
    }
    all
}
