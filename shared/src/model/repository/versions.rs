//! The versions of an ONNX model. A number folder with an ONNX file is a version; so is an ONNX file beside the description.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use super::{BrokenVersion, DESCRIPTION, ModelError, ONNX_FILE, OnnxFile, listed, written::Written};

/// The version of an ONNX file that is in no number folder, unless the description has another.
pub(super) const FIRST: &str = "1";

/// A version of a model.
#[derive(Clone, Debug)]
pub(super) struct Version {
    /// Its number, or another text if the description says so.
    pub(super) number: String,
    /// Its file.
    pub(super) onnx_file: PathBuf,
}

/// The version that is served.
pub(super) struct Chosen {
    pub(super) version: Version,
    pub(super) file: OnnxFile,
    /// Older ones that can be used, too, the newest first.
    pub(super) others: Vec<(Version, OnnxFile)>,
    /// Those that cannot be.
    pub(super) broken_versions: Vec<BrokenVersion>,
}

/// Chooses the newest version that can be read, or the one that the description names. `None` if there are no ONNX files.
pub(super) fn choose(folder: &Path, written: &Written) -> Result<Option<Chosen>, ModelError> {
    let mut versions = versions(folder, written)?;
    let beside = folder.join(written.onnx_file.as_deref().unwrap_or(Path::new(ONNX_FILE)));
    let has_file_beside = versions.iter().any(|version| version.onnx_file == beside);
    if let Some(pinned) = written.version.as_ref().filter(|_| !has_file_beside && !versions.is_empty()) {
        let known: Vec<_> = versions.iter().map(|version| version.number.clone()).collect();
        versions.retain(|version| version.number == *pinned);
        if versions.is_empty() {
            let reason = format!("its version is `{pinned}`, but the folder has {}", listed(&known));
            return Err(ModelError::Inconsistent { path: folder.join(DESCRIPTION), reason });
        }
    }
    let is_single = versions.len() == 1;
    let (mut good, mut broken_versions) = (Vec::new(), Vec::new());
    for version in versions {
        match OnnxFile::read(&version.onnx_file) {
            Ok(file) => good.push((version, file)),
            Err(error) if is_single => return Err(error.into()),
            Err(error) => {
                let error = Box::new(error.into());
                broken_versions.push(BrokenVersion { number: version.number, error });
            }
        }
    }
    let mut others = good.into_iter();
    if let Some((version, file)) = others.next() {
        return Ok(Some(Chosen { version, file, others: others.collect(), broken_versions }));
    }
    let numbers: Vec<_> = broken_versions.iter().map(|broken| broken.number.as_str()).collect();
    let (folder, numbers) = (folder.to_owned(), numbers.join(" nor "));
    let newest = broken_versions.into_iter().next().map(Box::new);
    newest.map_or(Ok(None), |newest| Err(ModelError::NoGoodVersion { folder, numbers, newest }))
}

/// Whether there are ONNX files.
pub(super) fn has_any(folder: &Path, written: &Written) -> Result<bool, ModelError> {
    Ok(!versions(folder, written)?.is_empty())
}

/// All versions, the newest first.
fn versions(folder: &Path, written: &Written) -> Result<Vec<Version>, ModelError> {
    let mut versions = BTreeMap::<Option<u64>, Version>::new();
    let beside = folder.join(written.onnx_file.as_deref().unwrap_or(Path::new(ONNX_FILE)));
    if written.onnx_file.is_some() || beside.exists() {
        let number = written.version.clone().unwrap_or_else(|| FIRST.to_owned());
        versions.insert(number.parse().ok(), Version { number, onnx_file: beside });
    }
    let unreadable = |source| ModelError::Unreadable { path: folder.to_owned(), source };
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let onnx_file = entry.path().join(ONNX_FILE);
        let Ok(number) = name.parse::<u64>() else { continue };
        // A number folder without an ONNX file is a version for another backend.
        if !onnx_file.exists() {
            continue;
        }
        let version = Version { number: name, onnx_file };
        if let Some(other) = versions.insert(Some(number), version.clone()) {
            let reason = format!(
                "version {number} is there twice, {} and {}: remove one, or change `version`",
                other.onnx_file.display(),
                version.onnx_file.display()
            );
            return Err(ModelError::Inconsistent { path: folder.join(DESCRIPTION), reason });
        }
    }
    Ok(versions.into_values().rev().collect())
}
