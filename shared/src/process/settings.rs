//! Settings. Each is a flag and an environment variable of the same name. clap reads them as text; [`Mistakes`] turns the text
//! into types and collects everything that is wrong, so one start reports it all.

mod arguments;
mod host;

use std::{fmt::Display, ops::RangeInclusive, str::FromStr, time::Duration};

pub use self::{arguments::arguments, host::Host};

/// Some settings are wrong. Each line names a setting, its value, and what is allowed.
#[derive(Debug, thiserror::Error)]
#[error("{}", list(.0))]
pub struct ConfigError(Vec<String>);

fn list(mistakes: &[String]) -> String {
    let noun = if mistakes.len() == 1 { "a setting is" } else { "settings are" };
    format!("{noun} wrong:\n  {}", mistakes.join("\n  "))
}

/// Everything that is wrong with the settings.
#[derive(Debug, Default)]
pub struct Mistakes(Vec<String>);

impl Mistakes {
    /// Adds a mistake: the setting `name` is wrong for this reason.
    pub fn add(&mut self, name: &str, reason: impl Display) {
        self.0.push(format!("{name}: {reason}"));
    }

    /// Reads a number within `range`. After a mistake, returns the smallest one.
    pub fn number<T>(&mut self, name: &str, text: &str, range: RangeInclusive<T>) -> T
    where
        T: Copy + PartialOrd + FromStr + Display,
    {
        match text.trim().parse::<T>() {
            Ok(number) if range.contains(&number) => number,
            _ => {
                let (start, end) = (range.start(), range.end());
                self.add(name, format!("`{text}` is not a whole number from {start} to {end}"));
                *range.start()
            }
        }
    }

    /// Reads a port. Kubernetes sets variables of the same form for each Service: NAME_PORT is then a whole address.
    pub fn port(&mut self, name: &str, text: &str) -> u16 {
        if !text.contains("://") {
            return self.number(name, text, 1..=u16::MAX);
        }
        let service = name.trim_end_matches("_PORT").to_lowercase().replace('_', "-");
        let reason = format!(
            "`{text}` is an address, which Kubernetes puts into {name} when there is a Service named {service}; \
             set {name} in the pod to the port alone, or set enableServiceLinks: false there"
        );
        self.add(name, reason);
        1
    }

    /// Reads the host of another service.
    pub fn host(&mut self, name: &str, text: &str) -> Host {
        self.parsed(name, text, Host::local())
    }

    /// Reads a length of time in milliseconds.
    pub fn millis(&mut self, name: &str, text: &str, range: RangeInclusive<u64>) -> Duration {
        Duration::from_millis(self.number(name, text, range))
    }

    /// Reads a length of time in seconds.
    pub fn seconds(&mut self, name: &str, text: &str, range: RangeInclusive<u64>) -> Duration {
        Duration::from_secs(self.number(name, text, range))
    }

    /// Reads any other type.
    pub fn parsed<T>(&mut self, name: &str, text: &str, fallback: T) -> T
    where
        T: FromStr,
        T::Err: Display,
    {
        text.trim().parse().unwrap_or_else(|error| {
            self.add(name, format!("`{text}` {error}"));
            fallback
        })
    }

    /// Returns `settings`, unless there are mistakes.
    ///
    /// # Errors
    /// All mistakes.
    pub fn unless_any<T>(self, settings: Option<T>) -> Result<T, ConfigError> {
        match settings {
            Some(settings) if self.0.is_empty() => Ok(settings),
            _ => Err(ConfigError(self.0)),
        }
    }
}
