//! Who may use the API, and how much each may keep.

use std::path::PathBuf;

use clap::Args;
use tepal_shared::process::{settings::Mistakes, telemetry};

use crate::edge::access::{Access, KeysError};

/// The settings of access.
#[derive(Args, Clone, Debug)]
pub(super) struct AccessArgs {
    /// TOML file with the API keys and what each may do; none = everybody may do everything
    #[arg(long, env = "API_KEYS_FILE", value_name = "FILE", help_heading = "HTTP")]
    api_keys_file: Option<PathBuf>,
    /// Most bytes that an owner, or an address where nobody owns the jobs, may keep in Redis in inputs and results above 8 KiB;
    /// 0 = any number. A quarter of the maxmemory of Redis when it is not given
    #[arg(long, env = "OWNER_MAX_BYTES", value_name = "BYTES", help_heading = "HTTP")]
    owner_max_bytes: Option<String>,
}

impl AccessArgs {
    /// Most bytes that a caller may keep, 0 = any number; `None` when nobody said.
    pub(super) fn owner_max_bytes(&self, mistakes: &mut Mistakes) -> Option<u64> {
        let text = self.owner_max_bytes.as_deref()?;
        // The scripts count up to 2^53.
        Some(mistakes.number("OWNER_MAX_BYTES", text, 0..=1 << 50))
    }

    /// The file, if there is to be one; it is read, so that what is wrong with it is told with the other mistakes.
    pub(super) fn check(&self, mistakes: &mut Mistakes) -> Option<PathBuf> {
        const NAME: &str = "API_KEYS_FILE";
        let path = self.api_keys_file.clone()?;
        match Access::open(&path) {
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
