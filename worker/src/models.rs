//! Which models this worker serves: all of the repository, or those that `MODELS` names.

use std::{collections::BTreeMap, io};

use clap::Args;
use tepal_shared::{
    job::ModelName,
    model::{
        Model,
        repository::{Files, ModelError, Repository},
    },
    process::{settings::Mistakes, telemetry},
    settings::Common,
};

use crate::{backend::OpenError, upkeep::removed::RemovedModelJobs};

/// Flags and environment variables.
#[derive(Args, Clone, Debug)]
pub struct ModelsArgs {
    /// Names of the models that this worker serves, comma separated; none = all of MODELS_DIR
    #[arg(long, env = "MODELS", value_name = "NAMES", help_heading = "Model")]
    models: Option<String>,
    /// What happens to jobs that wait for a removed model: wait, or fail (as model_not_found)
    #[arg(
        long,
        env = "REMOVED_MODEL_JOBS",
        default_value = "wait",
        value_name = "WORD",
        help_heading = "Model"
    )]
    removed_model_jobs: String,
}

/// [`ModelsArgs`] after checking.
#[derive(Clone, Debug)]
pub struct ModelsSettings {
    /// The models to serve; `None` = all of the repository.
    pub only: Option<Vec<ModelName>>,
    /// Models to serve that need no folder, because a model server describes them.
    without_folder: Vec<ModelName>,
    /// There may be no repository at all.
    is_optional: bool,
    /// What happens to jobs that wait for a removed model.
    pub removed_model_jobs: RemovedModelJobs,
}

/// A model that this worker serves.
#[derive(Clone, Debug)]
pub struct ServedModel {
    /// Its name.
    pub name: ModelName,
    /// Its description.
    pub description: Model,
    /// Other versions that cannot be used, with the reason.
    pub broken_versions: Vec<String>,
}

/// A model cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ModelFailure {
    /// `MODELS` names it, and the repository has no such folder.
    #[error("MODELS names `{0}`, and MODELS_DIR has no such folder")]
    Missing(ModelName),
    /// The repository cannot be read.
    #[error("MODELS_DIR cannot be read")]
    Repository(#[source] io::Error),
    /// Its description cannot be read.
    #[error(transparent)]
    Description(#[from] ModelError),
    /// Its backend cannot be opened.
    #[error(transparent)]
    Backend(OpenError),
    /// A library panicked while it loaded the model.
    #[error("the library that loads the model panicked; see the line `panicked`")]
    Panicked,
}

impl ModelsArgs {
    pub(crate) fn check(&self, mistakes: &mut Mistakes) -> ModelsSettings {
        let removed_model_jobs =
            mistakes.parsed("REMOVED_MODEL_JOBS", &self.removed_model_jobs, RemovedModelJobs::Wait);
        let (without_folder, is_optional) = (Vec::new(), false);
        let settings = ModelsSettings { only: None, without_folder, is_optional, removed_model_jobs };
        let Some(text) = &self.models else { return settings };
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        let mut only: Vec<ModelName> = Vec::new();
        for name in names {
            match name.parse() {
                Ok(name) if only.contains(&name) => {}
                Ok(name) => only.push(name),
                Err(error) => mistakes.add("MODELS", telemetry::chain(&error)),
            }
        }
        ModelsSettings { only: Some(only), ..settings }
    }
}

impl ModelsSettings {
    /// The models that the settings name need no folders, and there may be no repository.
    pub(crate) fn may_lack_folders(&mut self, common: &Common) {
        let named = self.only.iter().flatten().copied();
        let default = Some(common.model_name).filter(|default| self.serves(*default));
        self.without_folder = named.chain(default).collect();
        self.is_optional = !common.models_dir.exists();
    }

    /// The models that are in the repository now, with their files; and those that need no folder. One that `MODELS` names may be
    /// added later.
    ///
    /// # Errors
    /// When the repository cannot be read.
    pub fn find(&self, common: &Common) -> io::Result<BTreeMap<ModelName, Files>> {
        let repository = Repository::new(&common.models_dir);
        let names = match repository.folders() {
            Err(error) if self.is_optional && error.kind() == io::ErrorKind::NotFound => Vec::new(),
            names => names?,
        };
        let served = names.into_iter().filter(|name| self.serves(*name)).chain(self.without_folder.clone());
        Ok(served.map(|name| (name, repository.files(name))).collect())
    }

    fn serves(&self, name: ModelName) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(&name))
    }

    /// The models that `MODELS` names and the repository lacks.
    pub fn missing<'a>(
        &'a self,
        found: &'a BTreeMap<ModelName, Files>,
    ) -> impl Iterator<Item = ModelName> + 'a {
        self.only.iter().flatten().copied().filter(|name| !found.contains_key(name))
    }
}
