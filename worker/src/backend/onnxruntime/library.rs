//! The ONNX Runtime library of this process: found, loaded once, with one pool of threads for all models.

use std::{
    panic::resume_unwind,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use ort::{
    environment::{Environment, GlobalThreadPoolOptions},
    logging::LogLevel,
};
use tracing::debug;

use super::places::{Surroundings, version_of};
use crate::backend::{compute::lower_priority, settings::OnnxRuntimeSettings};

/// A process can load one library and have one environment.
static LOADED: Mutex<Option<Library>> = Mutex::new(None);

/// A loaded library.
#[derive(Clone, Debug)]
pub(super) struct Library {
    /// Its settings for all sessions.
    pub(super) environment: Environment,
    /// Its file.
    pub(super) path: PathBuf,
    /// Its version, as in 1.32.0.
    pub(super) version: String,
}

/// There is no library that can be used.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// None is installed.
    #[error("no ONNX Runtime library was found; run `pip install onnxruntime`, or set ORT_DYLIB_PATH")]
    Missing,
    /// The file cannot be loaded, or its version is too old.
    #[error(
        "the ONNX Runtime library {path} cannot be used ({reason}); run `pip install --upgrade onnxruntime`, or set \
         ORT_DYLIB_PATH"
    )]
    Unusable {
        /// The file.
        path: String,
        /// The reason. It is part of the message.
        reason: String,
    },
}

/// Loads the library, unless it has been loaded before.
///
/// # Errors
/// When none is installed, or it cannot be used.
pub(super) fn load(settings: &OnnxRuntimeSettings) -> Result<Library, LibraryError> {
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(library) = &*loaded {
        return Ok(library.clone());
    }
    let given = settings.library.clone();
    let path = given.or_else(|| Surroundings::of_process().library()).ok_or(LibraryError::Missing)?;
    let library = open_with_low_priority(&path, settings.threads)?;
    *loaded = Some(library.clone());
    Ok(library)
}

/// The threads of the library have the priority of the one that opens it, see [`Compute`](crate::backend::compute::Compute).
fn open_with_low_priority(path: &Path, threads: usize) -> Result<Library, LibraryError> {
    thread::scope(|scope| {
        let opening = thread::Builder::new().spawn_scoped(scope, || {
            lower_priority();
            open(path.to_owned(), threads)
        });
        match opening {
            Ok(opening) => opening.join().unwrap_or_else(|panic| resume_unwind(panic)),
            // The system has no thread to spare.
            Err(_) => open(path.to_owned(), threads),
        }
    })
}

fn open(path: PathBuf, threads: usize) -> Result<Library, LibraryError> {
    let unusable = |reason| LibraryError::Unusable { path: path.display().to_string(), reason };
    let builder = ort::init_from(&path).map_err(|error| unusable(reason(&path, &error)))?;
    let environment = pool(threads).and_then(|pool| {
        builder
            .with_name("tepal")
            .with_telemetry(false)
            .with_global_thread_pool(pool)
            .with_logger(Arc::new(log))
            .build()
    });
    let environment = environment.map_err(|error| unusable(error.to_string()))?;
    let version = version_of(&path).unwrap_or_else(|| ort::info().to_owned());
    Ok(Library { environment, path, version })
}

/// Threads that spin would take the cores from everything else in the worker.
fn pool(threads: usize) -> ort::Result<GlobalThreadPoolOptions> {
    GlobalThreadPoolOptions::default()
        .with_intra_threads(threads)?
        .with_inter_threads(1)?
        .with_spin_control(false)
}

fn reason(path: &Path, error: &ort::LoadDynamicError) -> String {
    match error {
        ort::LoadDynamicError::Dlopen { error, .. } => error.to_string(),
        ort::LoadDynamicError::BadVersion { version_str, .. } => {
            format!("it has version {version_str}, and 1.{} is the oldest that works", ort::MINOR_VERSION)
        }
        other => format!("{other} ({})", path.display()),
    }
}

/// A failure is also an error of the call that it concerns, so its log line is for details only.
fn log(level: LogLevel, category: &str, _id: &str, location: &str, message: &str) {
    debug!(action = "onnxruntime_message", severity = ?level, category, location, message);
}
