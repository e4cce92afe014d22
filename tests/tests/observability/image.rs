//! The Dockerfile's layers without a Docker engine: the same files, laid out by the same commands, and cargo's word that
//! it could build there.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

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
