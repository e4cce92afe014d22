//! `compose/local.sh up`, the script of `make up`: it starts everything, prints what to try, and leaves nothing behind. Also
//! the options of `compose/monitor.sh`.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use tepal_tests::http::Client;
use tepal_tests::onnxruntime;
use tepal_tests::ports::{free_port, is_free};
use tepal_tests::process::{Logs, Process, binary_path};
use tepal_tests::wait::eventually;

use crate::{SOON, root};

/// How the test starts `up`: with programs that are already built, on free ports, with its own data.
struct Up {
    port: u16,
    grpc_port: u16,
    redis_port: u16,
    data: TempDir,
    backend: &'static str,
}

/// A running `up` in its own process group, as a shell starts a command.
struct Running<'a> {
    up: &'a Up,
    process: Process,
    output: Logs,
}

impl Up {
    fn new() -> Self {
        let data = tempfile::tempdir().unwrap();
        Self { port: free_port(), grpc_port: free_port(), redis_port: free_port(), data, backend: "onnx" }
    }

    fn command(&self) -> Command {
        let programs = binary_path("tepal-proxy");
        // When these tests run in the background, SIGINT is ignored, and a shell cannot undo that.
        let mut command = Command::new("env");
        command
            .arg("--default-signal=INT")
            .arg(root().join("compose/local.sh"))
            .args(["up", "--port", &self.port.to_string(), "--grpc-port", &self.grpc_port.to_string()])
            .args(["--redis-port", &self.redis_port.to_string()])
            .args(["--backend", self.backend])
            .args(["--metrics-port", &two_free_ports().to_string(), "--programs"])
            .arg(programs.parent().unwrap())
            .env("TEPAL_DATA_DIR", self.data.path())
            .stdin(Stdio::null())
            .process_group(0);
        command
    }

    /// Starts it and waits until it prints what to try.
    async fn start(&self) -> Running<'_> {
        let (pipe, writer) = std::io::pipe().unwrap();
        let mut command = self.command();
        command.stdout(writer.try_clone().unwrap()).stderr(writer);
        let process = Process::spawn("local.sh", &mut command).unwrap();
        drop(command); // and with it our ends of the pipe
        let output = Logs::default();
        output.follow(pipe);
        let running = Running { up: self, process, output };
        running.says("Ctrl-C stops everything").await;
        running
    }

    /// Runs it to its end, which must be a refusal.
    fn refusal(&self) -> String {
        let Output { status, stderr, .. } = self.command().output().unwrap();
        assert_eq!(status.code(), Some(1));
        assert_eq!(self.processes(), Vec::<String>::new());
        String::from_utf8(stderr).unwrap().trim_end().to_owned()
    }

    /// The command lines of all processes that were started with this data folder: `up` itself and its parts, but for
    /// Redis, which writes its title over its environment and is known by its port.
    fn processes(&self) -> Vec<String> {
        let mark = format!("TEPAL_DATA_DIR={}\0", self.data.path().display());
        let pids = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
        let marked = pids.filter(|process| {
            fs::read(process.join("environ"))
                .is_ok_and(|environ| String::from_utf8_lossy(&environ).contains(&mark))
        });
        marked.map(|process| command_line(&process)).collect()
    }
}

impl Running<'_> {
    async fn says(&self, text: &str) {
        let said = async || match self.output.find(text) {
            Some(_) => Ok(()),
            None => Err(format!("{}; it said:\n{}", self.process, self.output.tail(40))),
        };
        eventually(SOON, text, said).await;
    }

    /// The printed curl lines, which begin with two spaces.
    fn curl_lines(&self) -> Vec<String> {
        let lines = self.output.lines().into_iter();
        lines.filter(|line| line.starts_with("  curl ")).collect()
    }

    /// Sends a signal to the whole process group, as the terminal does.
    fn signal(&self, name: &str) {
        let group = format!("-{}", self.process.pid());
        assert!(Command::new("kill").args(["-s", name, "--", &group]).status().unwrap().success());
    }

    /// Waits for the end and returns the exit code. No process may remain.
    async fn end(&self) -> Option<i32> {
        let status = self.process.wait_exit(SOON).await;
        assert_eq!(self.up.processes(), Vec::<String>::new());
        let ports = [self.up.port, self.up.grpc_port, self.up.redis_port];
        assert!(ports.into_iter().all(is_free));
        status.code()
    }
}

/// A test that fails half way must stop all parts. Killing the script alone would leave them running.
impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.process.is_running() {
            return;
        }
        self.signal("TERM");
        let asked = Instant::now();
        while self.process.is_running() && asked.elapsed() < SOON {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[tokio::test]
async fn up_starts_everything_and_what_it_prints_works() {
    let up = Up::new();
    let running = up.start().await;

    let [submit, read] = running.curl_lines().try_into().unwrap();
    let accepted: Value = serde_json::from_str(&shell(&submit)).unwrap();
    let id = accepted["job_id"].as_str().unwrap();
    let read = read.replace("JOB_ID", id);
    let completed = async || {
        let job: Value = serde_json::from_str(&shell(&read)).unwrap();
        if job["status"] == "completed" { Ok(job) } else { Err(job.to_string()) }
    };
    let job = eventually(SOON, "the job to complete", completed).await;
    assert_eq!(job["result"]["class_name"], "setosa");
    let parts = up.processes();
    let of = |program: &str| parts.iter().filter(|line| line.ends_with(program)).count();
    assert_eq!((of("/tepal-proxy"), of("/tepal-worker")), (1, 2), "{parts:?}");
    let printed = running.output.lines();
    let redis_cli = printed.iter().find_map(|line| line.trim().strip_prefix("Redis    ")).unwrap();
    assert_eq!(shell(&format!("{redis_cli} ACL WHOAMI")).trim(), "tepal-operator");
    assert_eq!(shell(&format!("{redis_cli} CONFIG GET appendfsync")), "appendfsync\nalways\n");
    let nobody = shell(&format!("redis-cli -p {} PING", up.redis_port));
    assert!(nobody.contains("NOAUTH"), "{nobody}");

    running.signal("INT");
    assert_eq!(running.end().await, Some(130));
}

#[tokio::test]
async fn up_keeps_its_jobs_over_a_stop_and_a_start() {
    let up = Up::new();
    let client = Client::new(&format!("http://127.0.0.1:{}", up.port));
    let running = up.start().await;
    let id = client.predict(&serde_json::json!([[5.1, 3.5, 1.4, 0.2]])).await;
    let job = client.finished(&id, SOON).await;
    running.signal("TERM");
    assert_eq!(running.end().await, Some(143));

    let running = up.start().await;
    assert_eq!(client.job(&id).await, job);
    running.signal("INT");
    running.end().await;
}

#[tokio::test]
async fn up_with_onnx_runtime_uses_the_library_in_its_data() {
    let up = Up { backend: "onnxruntime", ..Up::new() };
    let installed = onnxruntime::library().ancestors().nth(3).unwrap();
    std::os::unix::fs::symlink(installed, up.data.path().join("onnxruntime")).unwrap();
    let running = up.start().await;

    let client = Client::new(&format!("http://127.0.0.1:{}", up.port));
    let id = client.predict(&serde_json::json!([[5.1, 3.5, 1.4, 0.2]])).await;
    assert_eq!(client.finished(&id, SOON).await["result"]["class_name"], "setosa");
    assert_eq!(client.get("/health").await.json()["components"]["onnxruntime"], "ok");

    running.signal("INT");
    assert_eq!(running.end().await, Some(130));
}

#[test]
fn up_says_what_to_do_when_onnx_runtime_cannot_be_fetched() {
    let up = Up { backend: "onnxruntime", ..Up::new() };
    let folder = up.data.path().display().to_string();
    let output = up.command().env("PIP_NO_INDEX", "1").env("PIP_FIND_LINKS", &folder).output().unwrap();

    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    let expected = "tepal: ONNX Runtime could not be installed; pip says why above. It needs a network, or set \
                    ORT_DYLIB_PATH to a libonnxruntime.so";
    assert_eq!(said.trim_end().lines().last(), Some(expected), "{said}");
    assert_eq!(up.processes(), Vec::<String>::new());

    let unknown = Up { backend: "keras", ..Up::new() };
    assert_eq!(unknown.refusal(), "tepal: --backend must be onnx or onnxruntime, not 'keras'");
}

#[tokio::test]
async fn up_ends_with_all_parts_when_one_is_killed() {
    let up = Up::new();
    let running = up.start().await;

    let is_worker = |process: &Path| command_line(process).ends_with("tepal-worker");
    let children = format!("/proc/{pid}/task/{pid}/children", pid = running.process.pid());
    let children = fs::read_to_string(children).unwrap();
    let worker = children.split_whitespace().find(|pid| is_worker(&Path::new("/proc").join(pid))).unwrap();
    assert!(Command::new("kill").args(["-s", "KILL", worker]).status().unwrap().success());

    assert_eq!(running.end().await, Some(1));
    running.says("tepal: worker-1 has stopped").await;
}

#[test]
fn up_refuses_a_port_that_is_in_use() {
    let up = Up::new();

    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, up.port)).unwrap();
    let next = up.port + 1;
    let sentence = "stop what listens there or choose another: make up";
    assert_eq!(up.refusal(), format!("tepal: port {} is in use; {sentence} PORT={next}", up.port));
    drop(taken);

    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, up.grpc_port)).unwrap();
    let next = up.grpc_port + 1;
    let refusal = format!("tepal: port {}, for gRPC, is in use; {sentence} GRPC_PORT={next}", up.grpc_port);
    assert_eq!(up.refusal(), refusal);
    drop(taken);

    let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, up.redis_port)).unwrap();
    let next = up.redis_port + 1;
    let refusal =
        format!("tepal: port {}, for Redis, is in use; {sentence} REDIS_PORT={next}", up.redis_port);
    assert_eq!(up.refusal(), refusal);
}

#[tokio::test]
async fn up_refuses_data_that_another_one_uses() {
    let up = Up::new();
    let running = up.start().await;
    let second = Up::new();

    let output = second.command().env("TEPAL_DATA_DIR", up.data.path()).output().unwrap();

    assert_eq!(output.status.code(), Some(1));
    let refusal = String::from_utf8(output.stderr).unwrap();
    assert!(refusal.starts_with("tepal: Tepal already runs with the data in "), "{refusal}");
    assert!(running.process.is_running());
    running.signal("INT");
    running.end().await;
}

#[test]
fn up_names_the_package_of_a_tool_that_is_missing() {
    let up = Up::new();
    let programs = tempfile::tempdir().unwrap();
    let tools = ["env", "bash", "dirname", "flock"];
    for (missing, present) in [("flock", &tools[..3]), ("setsid", &tools[3..])] {
        for tool in present {
            let found = shell(&format!("command -v {tool}"));
            std::os::unix::fs::symlink(found.trim(), programs.path().join(tool)).unwrap();
        }
        let output = up.command().env("PATH", programs.path()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(said, format!("tepal: {missing} is missing; install the package util-linux\n"));
    }
}

#[test]
fn monitor_looks_at_the_name_of_an_option_before_its_value() {
    let said = |arguments: &[&str]| {
        let output = Command::new(root().join("compose/monitor.sh")).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let options = "there are --port N, --metrics-port N and --console-port N";
    assert_eq!(said(&["--help"]), format!("tepal: unknown option --help; {options}\n"));
    for value in [&["--port"][..], &["--port", "eighty"]] {
        assert_eq!(said(value), "tepal: --port needs a number\n");
    }
}

/// The first of two adjacent free ports, one for the metrics of each worker.
fn two_free_ports() -> u16 {
    loop {
        let first = free_port();
        if free_port() == first + 1 {
            return first;
        }
    }
}

/// The output of a command line.
fn shell(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn command_line(process: &Path) -> String {
    let arguments = fs::read(process.join("cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&arguments).trim_end_matches('\0').replace('\0', " ")
}
