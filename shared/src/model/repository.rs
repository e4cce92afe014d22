//! The model repository: a folder with one folder for each model. A model's folder holds its ONNX file, a `model.toml`, or both.

mod error;
mod inspect;
mod interface;
mod merge;
mod versions;
mod watch;
mod written;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde_json::Value;

pub use self::{
    error::{BrokenVersion, ModelError},
    inspect::inspect,
    interface::{Interface, TensorFacts, TensorKind},
    watch::{Files, INTERVAL, Watch},
};
use self::{
    merge::Identity,
    versions::{Chosen, Version},
    written::Written,
};
use super::{Model, ServerVersion, Serving, onnx_file::OnnxFile};
use crate::job::ModelName;

/// The file in which a user describes a model, beside the ONNX file.
pub(super) const DESCRIPTION: &str = "model.toml";
/// The ONNX file of a model or of a version, unless [`DESCRIPTION`] names another.
pub(super) const ONNX_FILE: &str = "model.onnx";
/// Most versions beside the newest that clients may pin. Their descriptions are published with that of the newest.
const MOST_OTHER_VERSIONS: usize = 15;

/// A folder with models.
#[derive(Clone, Debug)]
pub struct Repository {
    folder: PathBuf,
}

/// A model that only a model server can describe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undescribed {
    /// The backend that `model.toml` names.
    pub backend: Option<String>,
    /// The model's name in the model server, if it is not its own.
    pub served_name: Option<String>,
    /// The signature to ask about.
    pub signature: String,
    /// The version to ask about.
    pub version: ServerVersion,
}

/// A model that was read.
#[derive(Debug)]
pub struct Loaded {
    /// The newest version that can be used.
    pub model: Model,
    /// The other versions that cannot be used.
    pub broken_versions: Vec<BrokenVersion>,
}

impl Model {
    /// Reads the newest version of the model `name` that can be used.
    ///
    /// # Errors
    /// When there is none, or its description is malformed or contradicts itself or the model.
    pub fn load(models_dir: &Path, name: &str) -> Result<Self, ModelError> {
        Repository::new(models_dir).load(name).map(|loaded| loaded.model)
    }

    /// Reads and checks a description that says everything.
    #[cfg(any(fuzzing, test))]
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let written = Written::parse(text).map_err(|error| error.to_string())?;
        let identity = Identity {
            name: written.name.clone().unwrap_or_default(),
            version: written.version.clone().unwrap_or_default(),
            onnx_file: None,
            sample: written.sample.clone(),
        };
        merge::describe(&written, None, identity)
    }
}

impl Repository {
    /// The repository in this folder.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The names of all models, sorted. Folders whose names are hidden or cannot be those of models are left out.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn names(&self) -> Result<Vec<String>, ModelError> {
        let unreadable = |source| ModelError::Repository { folder: self.folder.clone(), source };
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // A link to a folder is one, too.
            if ModelName::is_valid(&name) && entry.path().is_dir() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// The model to serve if no setting names one: `iris` if it is there, or the only one.
    ///
    /// # Errors
    /// When the folder cannot be read, and when it has no model, or several.
    pub fn default_model(&self) -> Result<String, ModelError> {
        let names = self.names()?;
        match names.as_slice() {
            [only] => Ok(only.clone()),
            names => names
                .iter()
                .find(|name| *name == "iris")
                .cloned()
                .ok_or_else(|| ModelError::NoDefault { folder: self.folder.clone(), known: listed(names) }),
        }
    }

    /// Reads a model: its newest version that can be used.
    ///
    /// # Errors
    /// When there is none, or its description is malformed or contradicts itself or the model.
    pub fn load(&self, name: &str) -> Result<Loaded, ModelError> {
        let folder = self.model_folder(name)?;
        if !folder.is_dir() {
            let known = listed(&self.names()?);
            return Err(ModelError::Unknown { folder: self.folder.clone(), name: name.to_owned(), known });
        }
        let written = self.written(name, &folder)?;
        // The ONNX files of a model that is called over HTTP do not matter.
        let chosen = if written.http.is_some() { None } else { versions::choose(&folder, &written)? };
        let Some(chosen) = chosen else {
            return Self::described(name, &folder, &written)
                .map(|model| Loaded { model, broken_versions: vec![] });
        };
        let Chosen { version, file, others, mut broken_versions } = chosen;
        let sample = sample(&folder, &written)?;
        let describe = |Version { number, onnx_file }: Version, file: &OnnxFile| {
            let refusal = |reason| match written.is_given {
                true => ModelError::Inconsistent { path: folder.join(DESCRIPTION), reason },
                false => ModelError::Unfit { path: onnx_file.clone(), reason },
            };
            let (onnx_file, sample) = (Some(onnx_file.clone()), sample.clone());
            let identity = Identity { name: name.to_owned(), version: number, onnx_file, sample };
            let model = merge::describe(&written, Some(&Interface::of_onnx(file)), identity);
            model.map(|model| Model { is_pinnable: true, ..model }).map_err(refusal)
        };
        let mut model = describe(version, &file)?;
        for (version, file) in others.into_iter().take(MOST_OTHER_VERSIONS) {
            let number = version.number.clone();
            match describe(version, &file) {
                Ok(other) => model.other_versions.push(other),
                Err(error) => broken_versions.push(BrokenVersion { number, error: Box::new(error) }),
            }
        }
        Ok(Loaded { model, broken_versions })
    }

    /// What to ask a model server about a model that has no ONNX file and no complete `model.toml`, and perhaps no folder.
    /// `None` if the folder describes the model.
    ///
    /// # Errors
    /// When `name` is no name of a model, its description is malformed, or the folder cannot be read.
    pub fn undescribed(&self, name: &str) -> Result<Option<Undescribed>, ModelError> {
        let folder = self.model_folder(name)?;
        let written = self.written(name, &folder)?;
        if written.is_complete() || folder.is_dir() && versions::has_any(&folder, &written)? {
            return Ok(None);
        }
        let (signature, version) = (written.signature(), written.server_version());
        let Serving { backend, served_name, .. } = written.serving;
        Ok(Some(Undescribed { backend, served_name, signature, version }))
    }

    /// Describes a model that is [`undescribed`](Self::undescribed) with the answer of its server.
    ///
    /// # Errors
    /// When `model.toml` is malformed, or contradicts itself or the server.
    pub fn load_served(&self, name: &str, interface: &Interface) -> Result<Model, ModelError> {
        let folder = self.model_folder(name)?;
        let written = self.written(name, &folder)?;
        let identity = Identity {
            name: name.to_owned(),
            version: written.version.clone().unwrap_or_else(|| versions::FIRST.to_owned()),
            onnx_file: None,
            sample: sample(&folder, &written)?,
        };
        let refusal = |reason| match written.is_given {
            true => ModelError::Inconsistent { path: folder.join(DESCRIPTION), reason },
            false => ModelError::Served { name: name.to_owned(), reason },
        };
        merge::describe(&written, Some(interface), identity).map(Model::on_a_server).map_err(refusal)
    }

    fn model_folder(&self, name: &str) -> Result<PathBuf, ModelError> {
        if !ModelName::is_valid(name) {
            name.parse::<ModelName>()?;
        }
        Ok(self.folder.join(name))
    }

    /// A model without an ONNX file: its description says everything.
    fn described(name: &str, folder: &Path, written: &Written) -> Result<Model, ModelError> {
        if !written.is_given {
            return Err(ModelError::NoModel { folder: folder.to_owned() });
        }
        let identity = Identity {
            name: name.to_owned(),
            version: written.version.clone().unwrap_or_else(|| versions::FIRST.to_owned()),
            onnx_file: None,
            sample: sample(folder, written)?,
        };
        merge::describe(written, None, identity)
            .map(Model::on_a_server)
            .map_err(|reason| ModelError::Inconsistent { path: folder.join(DESCRIPTION), reason })
    }

    /// What the description in the folder says, if there is one.
    fn written(&self, name: &str, folder: &Path) -> Result<Written, ModelError> {
        let path = folder.join(DESCRIPTION);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Written::default()),
            Err(source) => return Err(ModelError::Unreadable { path, source }),
        };
        let written = Written::parse(&text)
            .map_err(|source| ModelError::Malformed { path: path.clone(), source: Box::new(source) })?;
        match &written.name {
            Some(other) if other != name && self.folder.join(other).is_dir() => {
                Err(ModelError::NameTwice { one: name.to_owned(), other: other.clone(), path })
            }
            Some(other) if other != name => {
                let reason = format!("its name is `{other}`, but its folder's is `{name}`");
                Err(ModelError::Inconsistent { path, reason })
            }
            _ => Ok(written.within(folder)),
        }
    }
}

/// The sample of a description, inline or in a file.
fn sample(folder: &Path, written: &Written) -> Result<Option<Value>, ModelError> {
    let Some(file) = &written.sample_file else { return Ok(written.sample.clone()) };
    let path = folder.join(file);
    let text = fs::read(&path).map_err(|source| ModelError::Unreadable { path: path.clone(), source })?;
    serde_json::from_slice(&text).map(Some).map_err(|source| ModelError::Sample { path, source })
}

/// Names in a message.
fn listed(names: &[String]) -> String {
    match names {
        [] => "none".to_owned(),
        names => format!("`{}`", names.join("`, `")),
    }
}

#[cfg(test)]
mod tests;
