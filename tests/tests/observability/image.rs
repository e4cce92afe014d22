//! The Dockerfile's layers without a Docker engine: the same files, laid out by the same commands, and cargo's word that
//! it could build there.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;
use tepal_tests::ports::free_port;
use tepal_tests::process::Proxy;

use crate::{file, root};

/// The instructions of the stage `build`, each on one line.
fn instructions() -> Vec<String> {
    let dockerfile = file("compose/Dockerfile").replace("\\\n", " ");
    let stage =
        dockerfile.split("\nFROM ").find(|stage| stage.lines().next().unwrap().ends_with(" AS build"));
    let lines = stage.expect("a stage named build").lines().skip(1);
    lines.filter(|line| line.starts_with("COPY ") || line.starts_with("RUN ")).map(str::to_owned).collect()
}

fn shell(script: &str, dir: &Path) {
    let output = Command::new("sh").args(["-ec", script]).current_dir(dir).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{script}\n{text}");
}

/// What `COPY a b to` does with the checkout as its context.
fn copy(words: &str, dir: &Path) {
    let words: Vec<&str> = words.split_whitespace().collect();
    let (to, sources) = words.split_last().unwrap();
    let to = dir.join(to);
    for source in sources {
        let from = root().join(source);
        // A folder is copied with what is in it, a file into the folder.
        let from = if from.is_dir() { format!("{}/.", from.display()) } else { from.display().to_string() };
        std::fs::create_dir_all(&to).unwrap();
        shell(&format!("cp -R '{from}' '{}'", to.display()), dir);
    }
}

#[test]
fn each_layer_of_the_images_is_something_that_cargo_can_build() {
    let dir = TempDir::new().unwrap();
    let mut builds = 0;
    for instruction in instructions() {
        match instruction.split_once(' ').unwrap() {
            ("COPY", words) => copy(words, dir.path()),
            (_, script) => {
                let (before, _) = script.split_once("cargo build").expect("each RUN builds");
                // Reads every manifest and finds every target, and fails where `build` would; the lock file must fit.
                // Of the crates for other systems nothing may be on this machine.
                let host = "$(rustc -vV | sed -n 's/^host: //p')";
                let cargo = format!("cargo fetch --quiet --locked --offline --target {host}");
                shell(&format!("{before} {cargo}"), dir.path());
                builds += 1;
            }
        }
    }
    assert_eq!(builds, 2);
    for source in ["proto/src/lib.rs", "shared/src/lib.rs", "proxy/src/main.rs", "worker/src/main.rs"] {
        let copied = std::fs::read_to_string(dir.path().join(source)).unwrap();
        assert_eq!(copied, file(source));
    }
}

#[test]
fn what_the_images_copy_is_in_the_context() {
    let ignore = file(".dockerignore");
    let dockerfile = file("compose/Dockerfile");
    let from_context = dockerfile.lines().filter_map(|line| line.strip_prefix("COPY "));
    for words in from_context.filter(|words| !words.starts_with("--from")) {
        let words: Vec<&str> = words.split_whitespace().filter(|word| !word.starts_with("--")).collect();
        for source in &words[..words.len() - 1] {
            let allowed = ignore.lines().filter_map(|line| line.strip_prefix('!'));
            let is_allowed = allowed.clone().any(|path| Path::new(source).starts_with(path));
            assert!(is_allowed, ".dockerignore keeps {source} out of the context");
        }
    }
}

/// Whether compose/http-ok.sh finds `GET path` of the port answered with 2xx.
fn is_ok(port: &str, path: &str) -> bool {
    let script = root().join("compose/http-ok.sh");
    Command::new("bash").arg(script).args([port, path]).output().unwrap().status.success()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_health_check_tells_a_good_answer_from_a_bad_one_and_from_none() {
    // Without a Redis: alive, but not healthy.
    let proxy = Proxy::start(&format!("redis://127.0.0.1:{}", free_port()), &[]).await;
    let port = proxy.addr().rsplit(':').next().unwrap();
    assert!(is_ok(port, "/livez"));
    assert!(!is_ok(port, "/readyz"));
    assert!(!is_ok(&free_port().to_string(), "/livez"));
}

#[test]
fn the_entrypoint_takes_the_password_from_its_file() {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("password"), "from-file").unwrap();
    let entrypoint = |variables: &[(&str, &str)]| {
        let mut command = Command::new("sh");
        command.arg(root().join("compose/entrypoint.sh")).args([
            "sh",
            "-c",
            "echo \"$1:$REDIS_PASSWORD\"",
            "-",
            "argument",
        ]);
        let output = command.envs(variables.iter().copied()).current_dir(dir.path()).output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(entrypoint(&[("REDIS_PASSWORD_FILE", "password")]), (true, "argument:from-file\n".to_owned()));
    assert_eq!(entrypoint(&[("REDIS_PASSWORD", "given")]), (true, "argument:given\n".to_owned()));
    // Rather no start than one without a password.
    assert!(!entrypoint(&[("REDIS_PASSWORD_FILE", "missing")]).0);
}
