//! The layers of the Dockerfile without a Docker engine: the same files, copied by the same commands, and a check by cargo
//! that it could build them.

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

/// Does the same as `COPY a b to` with the checkout as context.
fn copy(words: &str, dir: &Path) {
    let words: Vec<&str> = words.split_whitespace().collect();
    let (to, sources) = words.split_last().unwrap();
    let to = dir.join(to);
    for source in sources {
        let from = root().join(source);
        // A folder is copied with its content, a file into the folder.
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

/// Whether compose/http-ok.sh finds `GET path` answered with 2xx at the address that `LISTEN_ADDR` holds, if it is set.
fn is_ok(address: Option<&str>, default: &str, path: &str) -> bool {
    let script = root().join("compose/http-ok.sh");
    let mut command = Command::new("bash");
    command.arg(script).args(["LISTEN_ADDR", default, path]);
    command.env_remove("LISTEN_ADDR").envs(address.map(|address| ("LISTEN_ADDR", address)));
    command.output().unwrap().status.success()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_health_check_distinguishes_a_good_answer_from_a_bad_one_and_from_none() {
    // Without a Redis: alive, but not healthy.
    let proxy = Proxy::start(&format!("redis://127.0.0.1:{}", free_port()), &[]).await;
    let port = proxy.addr().rsplit(':').next().unwrap();
    let (any, nobody) = (format!("0.0.0.0:{port}"), format!("0.0.0.0:{}", free_port()));
    assert!(is_ok(None, &any, "/livez"));
    assert!(!is_ok(None, &any, "/readyz"));
    assert!(!is_ok(None, &nobody, "/livez"));
    // The setting wins; an empty one counts as missing.
    for address in [any.as_str(), proxy.addr()] {
        assert!(is_ok(Some(address), &nobody, "/livez"), "{address}");
    }
    assert!(is_ok(Some(""), &any, "/livez"));
    assert!(!is_ok(Some(&nobody), &any, "/livez"));
}

#[test]
fn the_entrypoint_takes_settings_from_their_files() {
    let dir = TempDir::new().unwrap();
    let program = dir.path().join("bin/tepal-proxy");
    copy("compose/entrypoint.sh bin", dir.path());
    std::fs::rename(dir.path().join("bin/entrypoint.sh"), &program).unwrap();
    std::fs::create_dir_all(dir.path().join("lib/tepal")).unwrap();
    let behind = dir.path().join("lib/tepal/tepal-proxy");
    std::fs::write(&behind, "#!/bin/sh\necho \"$1:$REDIS_PASSWORD:$MODEL_BACKEND\"\n").unwrap();
    shell("chmod 755 lib/tepal/tepal-proxy", dir.path());
    std::fs::write(dir.path().join("password"), "from-file").unwrap();
    std::fs::write(dir.path().join("backend"), "onnx\n").unwrap();
    let start = |variables: &[(&str, &str)]| {
        let mut command = Command::new(&program);
        let output = command.arg("doctor").envs(variables.iter().copied()).current_dir(dir.path()).output();
        let output = output.unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    let files = [("REDIS_PASSWORD_FILE", "password"), ("MODEL_BACKEND_FILE", "backend")];
    assert_eq!(start(&files), (true, "doctor:from-file:onnx\n".to_owned()));
    let given = [("REDIS_PASSWORD", "given"), ("MODEL_BACKEND", "onnx")];
    assert_eq!(start(&given), (true, "doctor:given:onnx\n".to_owned()));
    // A wrong setting prevents the start.
    for setting in ["REDIS_PASSWORD_FILE", "MODEL_BACKEND_FILE"] {
        assert!(!start(&[(setting, "missing")]).0, "{setting}");
    }
}

#[test]
fn the_images_have_the_version_of_the_programs() {
    let dockerfile = file("compose/Dockerfile");
    let version = dockerfile.lines().find_map(|line| line.strip_prefix("ARG VERSION="));
    assert_eq!(version, Some(env!("CARGO_PKG_VERSION")));
}

#[test]
fn files_that_only_their_owner_may_read_become_readable_for_all() {
    let dir = TempDir::new().unwrap();
    std::fs::create_dir(dir.path().join("to")).unwrap();
    let strict = "umask 077; mkdir -p checkout/compose; cp -R \"$0\"/compose/*.* checkout/compose; \
                  cp -R \"$0\"/compose/models checkout/compose; cp -R \"$0\"/grafana checkout; chmod -R go= checkout";
    let run = |script: &str| {
        let output = Command::new("sh").args(["-ec", script]).arg(root()).current_dir(dir.path()).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    run(strict);
    let copied = "umask 077; sh checkout/compose/files.sh checkout to";
    run(copied);
    assert_eq!(run("find to -mindepth 1 ! -perm -o+r"), "");
    assert_eq!(run("find to -type d -mindepth 1 ! -perm -o+x"), "");
    run("diff -r checkout/compose/models to/models; diff checkout/compose/redis.conf to/redis.conf");

    // Again: changed files are copied, deleted files are deleted, and the others stay as they are.
    let before = run("ls -i to/redis.conf");
    run("echo '# mine' >>checkout/compose/alerts.yml; rm checkout/compose/models/iris/model.onnx");
    run(copied);
    run("diff -r checkout/compose/models to/models; diff checkout/compose/alerts.yml to/alerts.yml");
    assert_eq!(run("ls -i to/redis.conf"), before);
    assert_eq!(run("ls to"), run("ls to | grep -v new"));
}
