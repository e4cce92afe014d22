//! Where an ONNX Runtime library may be installed. Nothing is run and nothing is loaded to find out.

use std::{
    env,
    ffi::OsString,
    fs, iter,
    path::{Path, PathBuf},
};

/// The folder of the library in the PyPI package `onnxruntime`.
const IN_PACKAGE: &str = "onnxruntime/capi";
/// Folders for libraries of the whole system, beside that of the machine's architecture.
const SYSTEM: [&str; 5] =
    ["usr/local/lib", "usr/lib", "usr/lib64", "opt/onnxruntime/lib", "opt/homebrew/lib"];

/// What decides where to look.
pub(super) struct Surroundings {
    /// PATH.
    pub(super) programs: OsString,
    /// LD_LIBRARY_PATH.
    pub(super) libraries: OsString,
    /// HOME.
    pub(super) home: PathBuf,
    /// The root of the file system.
    pub(super) root: PathBuf,
}

impl Surroundings {
    /// Those of this process.
    pub(super) fn of_process() -> Self {
        let variable = |name| env::var_os(name).unwrap_or_default();
        Self {
            programs: variable("PATH"),
            libraries: variable("LD_LIBRARY_PATH"),
            home: variable("HOME").into(),
            root: "/".into(),
        }
    }

    /// The library to load: of the first folder that has one, the newest.
    pub(super) fn library(&self) -> Option<PathBuf> {
        let of_loader = env::split_paths(&self.libraries);
        let of_python = self.prefixes().into_iter().flat_map(|prefix| packages(&prefix));
        let system = SYSTEM
            .into_iter()
            .map(|folder| self.root.join(folder))
            .chain(iter::once(self.root.join("usr/lib").join(format!("{}-linux-gnu", env::consts::ARCH))));
        of_loader.chain(of_python).chain(system).find_map(|folder| newest(&folder))
    }

    /// The installation folders of the Pythons on the PATH, and those into which pip installs for a user and for all.
    fn prefixes(&self) -> Vec<PathBuf> {
        let mut prefixes = Vec::new();
        for folder in env::split_paths(&self.programs) {
            let python = folder.join("python3");
            if !python.is_file() {
                continue;
            }
            // The folder of the link is that of a virtual environment. A shim of pyenv is beside its versions.
            let linked = folder.parent().map(Path::to_owned);
            let resolved =
                python.canonicalize().ok().and_then(|file| Some(file.parent()?.parent()?.to_owned()));
            let versions = linked.iter().flat_map(|prefix| entries(&prefix.join("versions")));
            let versions: Vec<_> = versions.collect();
            prefixes.extend(linked.into_iter().chain(resolved).chain(versions));
        }
        prefixes.extend([self.home.join(".local"), self.root.join("usr/local"), self.root.join("usr")]);
        prefixes
    }
}

/// The folders of the library in the packages of a Python.
fn packages(prefix: &Path) -> Vec<PathBuf> {
    let is_python = |folder: &PathBuf| name(folder).starts_with("python3");
    let libraries = ["lib", "lib64"].into_iter().flat_map(|folder| entries(&prefix.join(folder)));
    let pythons = libraries.filter(is_python);
    let sites =
        |python: PathBuf| ["site-packages", "dist-packages"].map(|site| python.join(site).join(IN_PACKAGE));
    pythons.flat_map(sites).collect()
}

/// The library with the highest version in a folder.
fn newest(folder: &Path) -> Option<PathBuf> {
    let files = entries(folder).into_iter().filter(|path| is_library(&name(path)) && path.is_file());
    files.max_by_key(|path| version(&name(path)))
}

/// Whether this is the name of the library itself, and not of one of its providers.
fn is_library(name: &str) -> bool {
    name.strip_prefix("libonnxruntime.")
        .is_some_and(|rest| rest == "so" || rest.starts_with("so.") || rest.ends_with("dylib"))
}

/// The numbers in a file's name.
fn version(name: &str) -> Vec<u32> {
    name.split('.').filter_map(|part| part.parse().ok()).collect()
}

/// The version in the name of the file that `path` leads to.
pub(super) fn version_of(path: &Path) -> Option<String> {
    let file = path.canonicalize().ok()?;
    let numbers: Vec<_> = version(&name(&file)).iter().map(u32::to_string).collect();
    (numbers.len() > 1).then(|| numbers.join("."))
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What a folder contains, the highest version first. A folder that cannot be read contains nothing.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<_> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    let numbers = |path: &PathBuf| version(&name(path).replace("python", ""));
    entries.sort_by_key(|path| std::cmp::Reverse(numbers(path)));
    entries
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    /// A file system with these files.
    struct Disk(TempDir);

    impl Disk {
        fn with(files: &[&str]) -> Self {
            let disk = Self(tempfile::tempdir().unwrap());
            files.iter().for_each(|file| disk.add(file));
            disk
        }

        fn add(&self, file: &str) {
            let path = self.0.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }

        fn found(&self, programs: &[&str]) -> Option<String> {
            let programs = env::join_paths(programs.iter().map(|folder| self.0.path().join(folder))).unwrap();
            let surroundings = Surroundings {
                programs,
                libraries: self.0.path().join("loader").into(),
                home: self.0.path().join("home"),
                root: self.0.path().to_owned(),
            };
            let library = surroundings.library()?;
            Some(library.strip_prefix(self.0.path()).unwrap().to_str().unwrap().to_owned())
        }
    }

    #[test]
    fn the_wheel_of_a_virtual_environment_is_found_through_its_python() {
        let wheel = "venv/lib/python3.12/site-packages/onnxruntime/capi/libonnxruntime.so.1.22.1";
        let disk = Disk::with(&[wheel, "usr/bin/python3.12", "usr/lib/libonnxruntime.so"]);
        fs::create_dir(disk.0.path().join("venv/bin")).unwrap();
        symlink(disk.0.path().join("usr/bin/python3.12"), disk.0.path().join("venv/bin/python3")).unwrap();

        assert_eq!(disk.found(&["venv/bin", "usr/bin"]).as_deref(), Some(wheel));
        assert_eq!(disk.found(&["usr/bin"]).as_deref(), Some("usr/lib/libonnxruntime.so"));
    }

    #[test]
    fn the_newest_python_of_pyenv_and_the_packages_of_the_user_are_found() {
        let of = |version: &str| {
            format!(
                "pyenv/versions/3.{version}.1/lib/python3.{version}/site-packages/onnxruntime/capi/libonnxruntime.so.1"
            )
        };
        let disk = Disk::with(&["pyenv/shims/python3", &of("9"), &of("11")]);
        assert_eq!(disk.found(&["pyenv/shims"]), Some(of("11")));

        let of_user = "home/.local/lib/python3.11/site-packages/onnxruntime/capi/libonnxruntime.so.1.32.0";
        assert_eq!(Disk::with(&[of_user]).found(&[]).as_deref(), Some(of_user));
    }

    #[test]
    fn of_several_files_the_newest_library_is_taken() {
        let disk = Disk::with(&[
            "loader/libonnxruntime.so.1.9.0",
            "loader/libonnxruntime.so.1.22.0",
            "loader/libonnxruntime_providers_shared.so",
            "loader/libonnxruntime.so",
            "usr/local/lib/libonnxruntime.so.1.32.0",
        ]);
        assert_eq!(disk.found(&[]).as_deref(), Some("loader/libonnxruntime.so.1.22.0"));
        assert_eq!(Disk::with(&["usr/local/lib/libonnxruntime_providers_shared.so"]).found(&[]), None);
    }

    #[test]
    fn the_version_is_in_the_name_of_the_linked_file() {
        let disk = Disk::with(&["lib/libonnxruntime.so.1.22.1"]);
        let link = disk.0.path().join("lib/libonnxruntime.so");
        symlink(disk.0.path().join("lib/libonnxruntime.so.1.22.1"), &link).unwrap();
        assert_eq!(version_of(&link).as_deref(), Some("1.22.1"));
        assert_eq!(version_of(Path::new("/missing")), None);
    }
}
