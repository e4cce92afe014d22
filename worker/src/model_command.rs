//! `tepal-worker model`: looks at models. Needs no Redis.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Subcommand};
use tepal_shared::{
    model::{
        ServerVersion,
        repository::{self, ModelError, Undescribed},
    },
    process::settings::{ConfigError, Mistakes},
};

use crate::backend::{
    BackendError, OpenError, ServedInterface,
    settings::{BackendArgs, BackendKind, ModelServer},
};

/// The subcommand.
#[derive(Args, Clone, Debug)]
#[command(disable_help_subcommand = true)]
pub struct ModelCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Clone, Debug)]
enum Action {
    /// Print what an ONNX file or a model server says of a model, as a model.toml to start from
    Inspect(Inspect),
}

#[derive(Args, Clone, Debug)]
struct Inspect {
    /// ONNX file, or folder of a model
    #[arg(value_name = "PATH", required_unless_present = "served", conflicts_with = "served")]
    path: Option<PathBuf>,
    /// Ask the model server for the model of this name: the one of MODEL_BACKEND, or else TensorFlow Serving
    #[arg(long, value_name = "NAME")]
    served: Option<String>,
    /// Signature of that model, for TensorFlow Serving
    #[arg(long, value_name = "NAME", default_value = "serving_default")]
    signature: String,
    #[command(flatten)]
    backend: BackendArgs,
}

/// The model cannot be read, or the answer not printed.
#[derive(Debug, thiserror::Error)]
pub enum ModelCommandError {
    /// The model cannot be used.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The settings of the server are wrong.
    #[error(transparent)]
    Settings(#[from] ConfigError),
    /// The settings of the server cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The server does not answer, or does not serve the model.
    #[error("the model server does not describe the model `{name}`")]
    Server {
        /// The model.
        name: String,
        /// The reason.
        #[source]
        source: BackendError,
    },
    /// Standard output cannot be written.
    #[error("cannot print the description")]
    Print(#[source] io::Error),
}

impl ModelCommand {
    /// Runs the subcommand, and prints its result.
    ///
    /// # Errors
    /// When the model cannot be read, or when standard output cannot be written.
    pub async fn run(&self) -> Result<ExitCode, ModelCommandError> {
        let Action::Inspect(inspect) = &self.action;
        let text = match (&inspect.path, &inspect.served) {
            (Some(path), _) => repository::inspect(path)?,
            (None, name) => inspect.served(name.as_deref().unwrap_or_default()).await?,
        };
        io::stdout().write_all(text.as_bytes()).map_err(ModelCommandError::Print)?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Inspect {
    async fn served(&self, name: &str) -> Result<String, ModelCommandError> {
        let mut mistakes = Mistakes::default();
        let settings = self.backend.check(usize::MAX, &mut mistakes);
        let settings = mistakes.unless_any(Some(settings))?;
        let (kind, server) = match settings.server(settings.kind) {
            Some(server) => (settings.kind, server),
            None => (BackendKind::TensorflowServing, &settings.tensorflow_serving),
        };
        let question = Undescribed {
            backend: Some(kind.as_str().to_owned()),
            served_name: None,
            signature: self.signature.clone(),
            version: ServerVersion::Newest,
        };
        let asked = ServedInterface::open(&settings, name, &question)?;
        let unserved = |source| ModelCommandError::Server { name: name.to_owned(), source };
        let interface = asked.ask().await.map_err(unserved)?;
        let ModelServer { host, port, .. } = server;
        let heading = [
            format!("What the model server on {host}:{port} says of the model {name}."),
            String::new(),
            "Workers ask the server themselves. To change something, save this as model.toml.".to_owned(),
        ];
        let signature = match self.signature.as_str() {
            "serving_default" => String::new(),
            signature => format!("signature = {}\n", serde_json::Value::from(signature)),
        };
        Ok(interface.description(&heading).replacen("\nmax_batch", &format!("\n{signature}max_batch"), 1))
    }
}
