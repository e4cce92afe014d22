//! Redis as Tepal ships it: `compose/redis.conf`, the users that `compose/secrets.sh` makes, and the memory limit of
//! `compose/compose.yaml`. The harness logs in as its own user, with all rights.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, Mutex};

/// The user of the harness, beside the shipped ones.
pub(super) const HARNESS: &str = "harness";
/// Its password.
pub(super) const PASSWORD: &str = "harness-password";
const HOLDERS: [&str; 5] = ["proxy", "worker", "operator", "grafana", "redis"];

/// The users of a queue's Redis.
#[derive(Clone, Debug)]
pub(super) struct Users {
    /// The ACL file, with the harness's user.
    pub(super) rules: String,
    /// By holder: `proxy`, `worker`, `operator`.
    passwords: BTreeMap<String, String>,
}

impl Users {
    /// Those that `compose/secrets.sh` makes for this queue and this server; made once in a process.
    pub(super) fn of(queue: &str, server: &Path) -> Self {
        static MADE: LazyLock<Mutex<BTreeMap<(String, PathBuf), Users>>> = LazyLock::new(Mutex::default);
        let mut made = MADE.lock().expect("no panic while held");
        let key = (queue.to_owned(), server.to_owned());
        made.entry(key).or_insert_with(|| Self::make(queue, server)).clone()
    }

    fn make(queue: &str, server: &Path) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for holder in HOLDERS {
            std::fs::create_dir(dir.path().join(holder)).expect("the directory is ours");
        }
        let mut script = Command::new("sh");
        script.arg(compose("secrets.sh")).arg(compose(template(server))).arg(dir.path());
        let status = script.env("QUEUE_NAME", queue).status().expect("a shell");
        assert!(status.success(), "compose/secrets.sh failed: {status}");
        let read = |path: &str| {
            std::fs::read_to_string(dir.path().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
        };
        let rules = format!("{}user {HARNESS} on >{PASSWORD} ~* &* +@all\n", read("redis/users.acl"));
        let password = |holder: &str| (holder.to_owned(), read(&format!("{holder}/password")));
        Self { rules, passwords: ["proxy", "worker", "operator"].map(password).into() }
    }

    /// `user:password@` of a holder.
    pub(super) fn login(&self, holder: &str) -> String {
        let password = self.passwords.get(holder).unwrap_or_else(|| panic!("{holder} has no user of Redis"));
        format!("tepal-{holder}:{password}@")
    }
}

/// A file of the folder `compose`.
pub(super) fn compose(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("compose").join(file)
}

/// The line of `redis.conf` for the composition's memory limit.
pub(super) fn memory_limit() -> String {
    let composition = std::fs::read_to_string(compose("compose.yaml")).expect("compose/compose.yaml");
    let limit = composition.split("${REDIS_MAXMEMORY:-").nth(1).and_then(|rest| rest.split('}').next());
    format!("maxmemory {}", limit.expect("compose.yaml limits Redis's memory"))
}

/// The ACL file for this server: before 7.2 Redis refuses a file that names a command it does not know.
fn template(server: &Path) -> &'static str {
    let output = Command::new(server).arg("--version").output();
    let output = output.unwrap_or_else(|error| panic!("cannot start {}: {error}", server.display()));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.split("v=").nth(1).unwrap_or_else(|| panic!("no version in {text}"));
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or_default());
    let is_older = (numbers.next(), numbers.next()) < (Some(7), Some(2));
    if is_older { "users.acl" } else { "users-7.2.acl" }
}
