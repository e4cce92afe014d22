//! The settings of access.

use std::path::PathBuf;

use clap::Args;
use tepal_shared::process::{settings::Mistakes, telemetry};

use super::keyring::{Keyring, KeysError};
use crate::reload::Files;

/// Flags and environment variables.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "HTTP")]
pub(crate) struct AccessArgs {
    /// TOML file with the API keys and their scopes; none = everybody may do everything
    #[arg(long, env, value_name = "FILE")]
    api_keys_file: Option<PathBuf>,
}

impl AccessArgs {
    /// The file, if there is one. It is read, so that its mistakes are reported with those of the settings.
    pub(crate) fn check(&self, mistakes: &mut Mistakes) -> Option<PathBuf> {
        const NAME: &str = "API_KEYS_FILE";
        let path = self.api_keys_file.clone()?;
        let read = Files::open([path.clone()]).map_err(KeysError::from);
        match read.and_then(|(_, [contents])| Keyring::read(&contents)) {
            Ok(_) => {}
            Err(KeysError::Unreadable(error)) => mistakes.add(NAME, telemetry::chain(&error)),
            Err(KeysError::Wrong(all)) => {
                all.iter().for_each(|why| mistakes.add(NAME, format!("{}: {why}", path.display())));
            }
            Err(error) => mistakes.add(NAME, format!("{}: {}", path.display(), telemetry::chain(&error))),
        }
        Some(path)
    }
}
