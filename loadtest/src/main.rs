//! The binary: runs the command line and exits with the code that the library returns.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(tepal_loadtest::run(std::env::args_os()))
}
