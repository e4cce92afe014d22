//! The folder with the models of one process. Each process has its own, so a model can be removed from one worker, and workers get a
//! new version at different times.

use std::fs;
use std::path::{Path, PathBuf};

use super::models::ModelKind;

/// A folder of models.
#[derive(Debug)]
pub(super) struct Repository {
    dir: PathBuf,
    /// Where removed models are, and where new ones are prepared.
    aside: PathBuf,
}

impl Repository {
    /// A new folder with these models. The process calls a model server for `served` and runs the others itself.
    pub(super) fn make(dir: PathBuf, models: &[ModelKind], served: Option<ModelKind>) -> Self {
        let aside = dir.with_extension("aside");
        let repository = Self { dir, aside };
        fs::create_dir_all(&repository.aside).expect("a new folder");
        for model in models {
            let folder = repository.dir.join(model.name());
            fs::create_dir_all(&folder).expect("a new folder");
            repository.describe(&folder, *model, served);
            if served != Some(*model) {
                copy(*model, &folder, &["model.onnx", "version.bin"]);
            }
        }
        repository
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    fn describe(&self, folder: &Path, model: ModelKind, served: Option<ModelKind>) {
        let mut text = fs::read_to_string(source(model).join("model.toml")).unwrap_or_default();
        if served.is_some_and(|served| served != model) {
            text += "\n[serving]\nbackend = \"onnx\"\n";
        }
        if !text.is_empty() {
            fs::write(folder.join("model.toml"), text).expect("a new file");
        }
    }

    /// Moves the folder of a model away, at once.
    pub(super) fn remove(&self, model: ModelKind) {
        fs::rename(self.dir.join(model.name()), self.aside.join(model.name())).expect("the model is here");
    }

    /// Moves it back.
    pub(super) fn put_back(&self, model: ModelKind) {
        fs::rename(self.aside.join(model.name()), self.dir.join(model.name()))
            .expect("the model was removed");
    }

    /// Replaces the folder of `series` by one with only this version.
    pub(super) fn replace_series(&self, version: i64) {
        let (old, new) = (self.aside.join("old"), self.aside.join("new"));
        let number = new.join(version.to_string());
        fs::create_dir_all(&number).expect("a new folder");
        copy(ModelKind::Series, &number, &["model.onnx"]);
        fs::write(number.join("version.bin"), version.to_le_bytes()).expect("a new file");
        let folder = self.dir.join(ModelKind::Series.name());
        // Where workers call a server, model.toml says that they do not for this model.
        let _ = fs::copy(folder.join("model.toml"), new.join("model.toml"));
        fs::rename(&folder, &old).expect("the model is here");
        fs::rename(&new, &folder).expect("its place is free");
        fs::remove_dir_all(&old).expect("the old version can be deleted");
    }
}

fn source(model: ModelKind) -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.join(if model == ModelKind::Toy { "models" } else { "chaos-models" }).join(model.name())
}

/// Copies those of these files that the model has.
fn copy(model: ModelKind, folder: &Path, files: &[&str]) {
    for file in files {
        let from = source(model).join(file);
        if from.exists() {
            fs::copy(from, folder.join(file)).expect("a file of the model");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_version_takes_the_place_of_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let models = Repository::make(dir.path().join("models"), &ModelKind::ALL, Some(ModelKind::Wide));
        models.replace_series(7);
        models.remove(ModelKind::Wide);
        models.replace_series(8);

        let folder = models.dir().join("series");
        assert_eq!(fs::read(folder.join("8/version.bin")).unwrap(), 8_i64.to_le_bytes());
        assert!(folder.join("8/model.onnx").exists() && !folder.join("7").exists());
        assert!(fs::read_to_string(folder.join("model.toml")).unwrap().contains("backend = \"onnx\""));
        assert!(!models.dir().join("wide").exists());
        models.put_back(ModelKind::Wide);
        assert!(
            models.dir().join("wide/model.toml").exists() && !models.dir().join("wide/model.onnx").exists()
        );
    }
}
