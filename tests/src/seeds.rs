//! The committed inputs of the fuzz targets, for tests that run them without a fuzzer.

use std::path::Path;

/// Runs each seed of a target.
///
/// # Panics
/// When there is none, or one cannot be read.
pub fn replay(target: &str, run: fn(&[u8])) {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let files = std::fs::read_dir(&seeds).expect("the target has seeds");
    let files: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    assert!(!files.is_empty(), "{target}");
    files.iter().for_each(|file| run(&std::fs::read(file).expect("a seed")));
}
