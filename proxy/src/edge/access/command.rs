//! `tepal-proxy key`: makes keys. Needs no other setting and touches no file.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::{Args, Subcommand};
use sha2::{Digest as _, Sha256};
use tepal_shared::job::{ModelName, owner};

use super::{scope::Scope, secret};

/// The subcommand.
#[derive(Args, Clone, Debug)]
#[command(disable_help_subcommand = true)]
pub struct KeyCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Clone, Debug)]
enum Action {
    /// Make a key. Prints the key, once, and its entry for API_KEYS_FILE
    ///
    /// The file holds only the key's SHA-256. A running proxy reads the file again within a few seconds.
    New(NewKey),
}

/// The properties of the new key.
#[derive(Args, Clone, Debug)]
struct NewKey {
    /// Owner of its jobs: keys with the same owner see the same jobs [default: the key's id]
    #[arg(long, value_name = "NAME", value_parser = parse_owner)]
    owner: Option<String>,
    /// Scope of the key; may be given more than once [default: read and submit]
    #[arg(long = "scope", value_enum, value_name = "SCOPE")]
    scopes: Vec<Scope>,
    /// Model that it may use; may be given more than once [default: all]
    #[arg(long = "model", value_name = "NAME", value_parser = parse_model)]
    models: Vec<String>,
    /// Most requests a minute; 0 = no limit
    #[arg(long, default_value_t = 0, value_name = "N")]
    requests_per_minute: u32,
}

/// The key cannot be made or printed.
#[derive(Debug, thiserror::Error)]
pub enum KeyCommandError {
    /// The operating system gave no random bytes.
    #[error("the operating system provides no random bytes for a key")]
    Random(#[source] getrandom::Error),
    /// Standard output cannot be written.
    #[error("cannot print the key")]
    Print(#[source] io::Error),
}

impl KeyCommand {
    /// Runs the subcommand, and prints its result.
    ///
    /// # Errors
    /// When there are no random bytes, or when standard output cannot be written.
    pub fn run(&self) -> Result<ExitCode, KeyCommandError> {
        let Action::New(new) = &self.action;
        let (id, key) = secret::generate().map_err(KeyCommandError::Random)?;
        let text = format!("{key}\n\n# For API_KEYS_FILE:\n{}", new.entry(&id, &key));
        io::stdout().write_all(text.as_bytes()).map_err(KeyCommandError::Print)?;
        Ok(ExitCode::SUCCESS)
    }
}

impl NewKey {
    /// The key's entry in the file.
    fn entry(&self, id: &str, key: &str) -> String {
        let given: &[Scope] =
            if self.scopes.is_empty() { &[Scope::Read, Scope::Submit] } else { &self.scopes };
        // Each scope once, in their order of declaration.
        let scopes: Vec<String> = Scope::ALL
            .iter()
            .filter(|scope| given.contains(scope))
            .map(|scope| format!("\"{scope}\""))
            .collect();
        let mut entry = format!(
            "[[key]]\nid = \"{id}\"\nsha256 = \"{:x}\"\nscopes = [{}]\n",
            Sha256::digest(key),
            scopes.join(", ")
        );
        if let Some(owner) = &self.owner {
            entry.push_str(&format!("owner = \"{owner}\"\n"));
        }
        if !self.models.is_empty() {
            let models: Vec<_> = self.models.iter().map(|name| format!("\"{name}\"")).collect();
            entry.push_str(&format!("models = [{}]\n", models.join(", ")));
        }
        if self.requests_per_minute > 0 {
            entry.push_str(&format!("requests_per_minute = {}\n", self.requests_per_minute));
        }
        entry
    }
}

fn parse_owner(text: &str) -> Result<String, &'static str> {
    if owner::is_owner(text) {
        Ok(text.to_owned())
    } else {
        Err("must be 1 to 64 letters, digits and . _ - @")
    }
}

fn parse_model(text: &str) -> Result<String, &'static str> {
    if ModelName::is_valid(text) {
        Ok(text.to_owned())
    } else {
        Err("must be 1 to 64 letters, digits and . _ -, the first a letter or a digit")
    }
}
