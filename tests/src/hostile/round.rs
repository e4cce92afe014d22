//! One attack from its start to its verdict: honest clients alone, beside the attack, and beside the control program.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::Options;
use super::attacks::Attack;
use super::field::Orders;
use super::honest::{Honest, Served};
use super::stack::Stack;
use super::tally::Summary;
use super::usage::{Profile, Watched, peak_memory, processor_time, watch};
use super::verdict::Measured;
use crate::process::Service;
use crate::wait::eventually;

/// How much longer than its time an attacker's process may run.
const END_WITHIN: Duration = Duration::from_secs(30);
/// With at most this many connections beside those of the harness, the attack has ended.
const CALM: f64 = 20.0;
const CALM_WITHIN: Duration = Duration::from_secs(120);
/// Files that an attacker's process may have open.
const OPEN_FILES: u64 = 20_000;

/// One attack on a stack of its own.
pub(super) struct Round<'a> {
    options: &'a Options,
    attack: Attack,
    largest_body: usize,
    stack: Stack,
    threads: usize,
}

impl<'a> Round<'a> {
    pub(super) async fn start(options: &'a Options, attack: Attack, largest_body: usize) -> Self {
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        let mut settings = vec![("MAX_BODY_BYTES", largest_body.to_string())];
        settings.extend(attack.settings().map(|(name, value)| (name, value.to_owned())));
        let stack = Stack::start(options.small_jobs, &settings).await;
        Self { options, attack, largest_body, stack, threads }
    }

    pub(super) async fn run(&self) -> Measured {
        let (quiet, usual) = self.beside(&[], self.options.quiet()).await;
        let rates: Vec<f64> = usual.iter().map(Profile::rate).collect();
        let (attacked, attack, used) = self.attacked().await;
        let memory = peak_memory(self.stack.proxy.pid()).unwrap_or_default();
        self.calm_down().await;
        // The attacker has no usual rate.
        let rates = rates.iter().copied().chain([0.0]);
        let beyond: Vec<_> = used.iter().zip(rates).map(|(used, rate)| used.beyond(rate)).collect();
        let (control, burnt) = self.controlled(&beyond).await;
        let taken = beyond.iter().map(Profile::total).sum();
        let (name, what, largest_body) = (self.attack.name(), self.attack.what(), self.largest_body);
        let gone = self.gone();
        Measured { name, what, largest_body, quiet, attacked, control, attack, taken, burnt, memory, gone }
    }

    fn seconds(&self) -> f64 {
        self.attack.seconds(self.options.seconds, self.options.is_short)
    }

    fn length(&self) -> Duration {
        Duration::from_secs_f64(self.seconds())
    }

    /// Runs honest clients, and measures the processes meanwhile.
    async fn beside(&self, others: &[Watched], length: Duration) -> (Served, Vec<Profile>) {
        let processes = [&self.stack.processes(self.threads), others].concat();
        let honest = Honest { target: self.stack.target(), rate: self.options.rate };
        tokio::join!(honest.run(length), watch(&processes, length))
    }

    async fn attacked(&self) -> (Served, Summary, Vec<Profile>) {
        let orders = self.orders();
        let file = self.write("orders.json", &serde_json::to_string(&orders).expect("orders are JSON"));
        let summary = self.path("summary.json");
        let builder = self.own("attack", &file).arg(&summary.display().to_string());
        let attacker = builder.open_files(OPEN_FILES, OPEN_FILES).start();
        let watched = Watched { pid: attacker.pid(), threads: self.threads };
        let half = self.length() / 2;
        let let_go = async {
            sleep(half).await;
            self.stack.held.let_go(&self.stack.redis);
        };
        let watched = [watched];
        let ((served, used), ()) = tokio::join!(self.beside(&watched, self.length()), let_go);
        let status = attacker.wait_exit(END_WITHIN).await;
        assert!(status.success(), "the attacker: {}", attacker.logs().tail(40));
        let text = std::fs::read_to_string(&summary).expect("the attacker writes a summary");
        (served, serde_json::from_str(&text).expect("a summary"), used)
    }

    async fn controlled(&self, used: &[Profile]) -> (Served, Duration) {
        let file = self.write("profiles.json", &serde_json::to_string(used).expect("profiles are JSON"));
        let burner = self.own("burn", &file).start();
        let burnt = self.burnt(burner.pid());
        let (served, _) = self.beside(&[], self.length()).await;
        let status = burner.wait_exit(END_WITHIN).await;
        assert!(status.success(), "the control program: {}", burner.logs().tail(40));
        (served, burnt.await.unwrap_or_default())
    }

    /// Processor time of a process until it ends.
    fn burnt(&self, pid: u32) -> JoinHandle<Duration> {
        tokio::spawn(async move {
            let mut last = Duration::ZERO;
            while let Some(time) = processor_time(pid)
                && std::fs::read_link(format!("/proc/{pid}/exe")).is_ok()
            {
                last = time;
                sleep(super::usage::INTERVAL).await;
            }
            last
        })
    }

    fn orders(&self) -> Orders {
        Orders {
            attack: self.attack.name(),
            target: self.stack.target(),
            grpc: self.stack.grpc(),
            seconds: self.seconds(),
            largest_body: self.largest_body,
            seeds: self.stack.seeds.clone(),
        }
    }

    /// This program as another process, for one of its parts.
    fn own(&self, part: &str, file: &Path) -> crate::process::ServiceBuilder {
        let program = &self.options.program;
        Service::program(part, program).arg(part).arg(&file.display().to_string())
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).expect("a file in the temporary directory");
        path
    }

    fn path(&self, name: &str) -> PathBuf {
        self.stack.redis.dir().join(name)
    }

    /// Waits until the attack's connections are gone and its jobs have ended.
    async fn calm_down(&self) {
        let client = self.stack.proxy.client();
        let open = async || {
            let open = client.try_get("/metrics").await.map(|answer| answer.metric("tepal_http_connections"));
            match open {
                Ok(open) if open < CALM => Ok(()),
                Ok(open) => Err(format!("{open} connections")),
                Err(error) => Err(error.to_string()),
            }
        };
        eventually(CALM_WITHIN, "the attack's connections to be gone", open).await;
        let streams = ["high", "normal", "low"].map(|name| format!("{{predict_queue:0}}:stream:iris:{name}"));
        let is_done = async || streams.iter().all(|stream| self.stack.redis.cli(&["XLEN", stream]) == "0");
        eventually(CALM_WITHIN, "the attack's jobs to end", is_done).await;
    }

    fn gone(&self) -> Vec<&'static str> {
        let stack = &self.stack;
        let running = [
            ("the proxy", stack.proxy.is_running()),
            ("the worker", stack.worker.is_running()),
            ("Redis", stack.redis.is_running()),
        ];
        running.into_iter().filter(|(_, is_running)| !is_running).map(|(name, _)| name).collect()
    }
}
