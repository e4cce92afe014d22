//! The ONNX Runtime library, which is no part of the programs. It is kept in the target folder.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

static LIBRARY: LazyLock<PathBuf> = LazyLock::new(install);

/// The library, as a setting of a worker.
pub const SETTING: &str = "ORT_DYLIB_PATH";

/// The path of the library. Fetches it from PyPI if it is missing.
///
/// # Panics
/// When it cannot be fetched.
#[must_use]
pub fn library() -> &'static Path {
    &LIBRARY
}

fn install() -> PathBuf {
    let exe = std::env::current_exe().expect("the executable has a path");
    let profile = exe.ancestors().skip(1).find(|dir| !dir.ends_with("deps"));
    let target = profile.and_then(Path::parent).expect("it is in a target folder");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("compose").join("local.sh");
    let output = Command::new(script).arg("onnxruntime").arg(target.join("onnxruntime")).output();
    let output = output.expect("compose/local.sh can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("a path").trim_end().into()
}
