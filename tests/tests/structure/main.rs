//! The structure of the sources: no files import each other in a circle, crates depend on each other one way, and functions and
//! files stay short.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failing step fails the test")]

mod imports;
mod sizes;

use std::fs;
use std::path::{Path, PathBuf};

use imports::Imports;

/// Longest function, in lines from its signature to its last brace.
const LONGEST_FUNCTION: usize = 60;
const LONGEST_FILE: usize = 400;

/// Every folder with sources: the crates of the workspace.
const FOLDERS: [&str; 6] = ["proto", "shared", "proxy", "worker", "loadtest", "tests"];

#[test]
fn no_files_import_each_other_in_a_circle() {
    let mut circles = Vec::new();
    for root in roots() {
        let imports = Imports::of(&root);
        circles.extend(imports.circles().iter().map(|circle| format!("{}: {circle}", root.display())));
    }
    assert!(circles.is_empty(), "\n{}", circles.join("\n"));
}

/// The crates that each may use, apart from its tests.
const EDGES: [(&str, &[&str]); 5] = [
    ("proto", &[]),
    ("shared", &["tepal-proto"]),
    ("proxy", &["tepal-proto", "tepal-shared"]),
    ("worker", &["tepal-proto", "tepal-shared"]),
    ("loadtest", &[]),
];

#[test]
fn crates_depend_on_each_other_only_as_the_architecture_says() {
    for (folder, allowed) in EDGES {
        let manifest = fs::read_to_string(in_repository(folder).join("Cargo.toml")).unwrap();
        let section = manifest.split("\n[").find(|section| section.starts_with("dependencies]"));
        let names = section.unwrap_or_default().lines().filter_map(|line| line.split(['.', ' ', '=']).next());
        let ours: Vec<_> = names.filter(|name| name.starts_with("tepal-")).collect();
        assert_eq!(ours, allowed, "{folder}");
    }
}

#[test]
fn functions_and_files_are_short() {
    let mut long = Vec::new();
    for (path, text) in sources() {
        let lines = text.lines().count();
        if lines > LONGEST_FILE {
            long.push(format!("{}: {lines} lines", path.display()));
        }
        let functions = sizes::functions(&syn::parse_file(&text).unwrap());
        let too_long = functions.into_iter().filter(|(_, lines)| *lines > LONGEST_FUNCTION);
        long.extend(too_long.map(|(name, lines)| format!("{}: fn {name}: {lines} lines", path.display())));
    }
    assert!(long.is_empty(), "\n{}", long.join("\n"));
}

#[test]
fn a_circle_is_found_and_named() {
    let files = [
        ("lib.rs", "mod a; mod b; mod c; use crate::a::A;"),
        ("a.rs", "use crate::b; fn f() { b::g() }"),
        ("b.rs", "fn g() { assert!(super::c::H) } mod inner { use super::super::Root; }"),
        ("c.rs", "use crate::{a::{A, B}, c::d};"),
        ("c/d.rs", "use super::H; #[cfg(test)] mod tests { use crate::a; }"),
    ];
    let files = files.map(|(path, text)| (imports::module(Path::new(path)), text.to_owned()));
    let circles = Imports::read(&files).circles();
    assert_eq!(circles, ["a -> b -> c -> a"]);
}

#[test]
fn a_function_is_measured_with_its_signature() {
    let file = syn::parse_file("/// Doc.\nfn a(\n) {\n}\nstruct S;\nimpl S { fn b() {} }\n").unwrap();
    assert_eq!(sizes::functions(&file), [("a".to_owned(), 3), ("b".to_owned(), 1)]);
}

/// The folders that hold the root of a crate: `src`, and those of its integration tests and benchmarks.
fn roots() -> Vec<PathBuf> {
    let mut roots = Vec::new();
    for folder in FOLDERS.map(in_repository) {
        let of_targets =
            ["tests", "benches"].map(|name| folder.join(name)).into_iter().filter(|dir| dir.is_dir());
        roots.push(folder.join("src"));
        roots.extend(of_targets.flat_map(|dir| entries(&dir)).filter(|path| path.join("main.rs").is_file()));
    }
    roots
}

/// Every source file with its text.
fn sources() -> Vec<(PathBuf, String)> {
    let paths = FOLDERS.map(in_repository).into_iter().flat_map(|folder| rust_files(&folder));
    paths.map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    entries
}

/// The Rust files of a folder and of the folders in it.
fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let inside = |path: PathBuf| match path.is_dir() {
        true if path.ends_with("target") => Vec::new(),
        true => rust_files(&path),
        false => vec![path],
    };
    let mut files: Vec<_> = entries(dir).into_iter().flat_map(inside).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    files
}
