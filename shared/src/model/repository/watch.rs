//! Notices that the files of models change, by their sizes and times. It reads no file, because it looks every few seconds.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::Repository;
use crate::job::ModelName;

/// Time between two looks.
pub const INTERVAL: Duration = Duration::from_secs(2);

/// Folders in folders that are looked at: a SavedModel has its variables two levels below the model.
const DEEPEST: u8 = 4;

/// The files of a model: size and time of the last change of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files(BTreeMap<PathBuf, (u64, Option<SystemTime>)>);

/// The files that were acted upon, and those that were seen since.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    /// Files that were reported, or that were there at the start.
    settled: BTreeMap<ModelName, Files>,
    /// Files that were seen once; none for a model whose folder was missing once.
    unsettled: BTreeMap<ModelName, Option<Files>>,
}

impl Repository {
    /// The folders that have the name of a model.
    ///
    /// # Errors
    /// When the repository cannot be read.
    pub fn folders(&self) -> io::Result<Vec<ModelName>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name: Option<ModelName> = entry.file_name().to_str().and_then(|name| name.parse().ok());
            names.extend(name.filter(|_| entry.path().is_dir()));
        }
        Ok(names)
    }

    /// The files of a model; none if it has no folder.
    #[must_use]
    pub fn files(&self, model: ModelName) -> Files {
        let mut files = Files::default();
        files.add(&self.folder.join(model.as_str()), DEEPEST);
        files
    }
}

impl Files {
    /// A file that cannot be read now is as good as missing: the next look may find it.
    fn add(&mut self, folder: &Path, depth: u8) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            // Links are followed, as the loaders do.
            match fs::metadata(&path) {
                Ok(found) if found.is_dir() && depth > 0 => self.add(&path, depth - 1),
                Ok(found) if found.is_file() => {
                    self.0.insert(path, (found.len(), found.modified().ok()));
                }
                _ => {}
            }
        }
    }
}

impl Watch {
    /// The models have these files now.
    #[must_use]
    pub fn new(settled: BTreeMap<ModelName, Files>) -> Self {
        Self { settled, unsettled: BTreeMap::new() }
    }

    /// The models whose files have changed, with whether they still have a folder. `found`: the files of all models. A change counts
    /// when two looks in a row find the same, because a copy may be under way. Each change is returned once.
    pub fn changes(&mut self, found: BTreeMap<ModelName, Files>) -> Vec<(ModelName, bool)> {
        let mut found: BTreeMap<_, _> =
            found.into_iter().map(|(model, files)| (model, Some(files))).collect();
        for model in self.settled.keys() {
            found.entry(*model).or_default();
        }
        self.unsettled.retain(|model, _| found.contains_key(model));
        let mut changes = Vec::new();
        for (model, files) in found {
            if self.settled.get(&model) == files.as_ref() {
                self.unsettled.remove(&model);
            } else if self.unsettled.get(&model) == Some(&files) {
                self.unsettled.remove(&model);
                changes.push((model, files.is_some()));
                match files {
                    Some(files) => self.settled.insert(model, files),
                    None => self.settled.remove(&model),
                };
            } else {
                self.unsettled.insert(model, files);
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn look(repository: &Repository, watch: &mut Watch) -> Vec<(String, bool)> {
        let names = repository.folders().unwrap();
        let found = names.into_iter().map(|name| (name, repository.files(name))).collect();
        watch.changes(found).into_iter().map(|(name, is_there)| (name.to_string(), is_there)).collect()
    }

    fn a_is(is_there: bool) -> Vec<(String, bool)> {
        vec![("a".to_owned(), is_there)]
    }

    #[test]
    fn a_change_is_returned_once_when_two_looks_find_the_same() {
        let dir = TempDir::new().unwrap();
        let (repository, mut watch) = (Repository::new(dir.path()), Watch::default());
        let file = dir.path().join("a/1/model.onnx");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::create_dir(dir.path().join(".hidden")).unwrap();
        for size in 1..4 {
            // A copy that grows at each look.
            fs::write(&file, vec![0; size]).unwrap();
            assert_eq!(look(&repository, &mut watch), []);
        }
        assert_eq!(look(&repository, &mut watch), a_is(true));
        assert_eq!(look(&repository, &mut watch), []);

        fs::remove_dir_all(dir.path().join("a")).unwrap();
        assert_eq!(look(&repository, &mut watch), []);
        assert_eq!(look(&repository, &mut watch), a_is(false));
        assert_eq!(look(&repository, &mut watch), []);
    }

    #[test]
    fn a_change_that_is_undone_is_none() {
        let dir = TempDir::new().unwrap();
        let repository = Repository::new(dir.path());
        fs::create_dir(dir.path().join("a")).unwrap();
        let name: ModelName = "a".parse().unwrap();
        let mut watch = Watch::new(BTreeMap::from([(name, repository.files(name))]));
        fs::write(dir.path().join("a/model.toml"), "").unwrap();
        assert_eq!(look(&repository, &mut watch), []);
        fs::remove_file(dir.path().join("a/model.toml")).unwrap();
        assert_eq!(look(&repository, &mut watch), []);
        fs::write(dir.path().join("a/model.toml"), "").unwrap();
        assert_eq!(look(&repository, &mut watch), []);
    }

    #[test]
    fn a_repository_that_cannot_be_read_is_an_error() {
        let missing = Repository::new("/nowhere/at/all");
        assert_eq!(missing.folders().unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
