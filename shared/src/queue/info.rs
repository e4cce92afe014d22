//! The text of INFO.

use std::collections::BTreeMap;

/// The fields of INFO, by name.
#[derive(Debug, Default)]
pub(super) struct Info(BTreeMap<String, String>);

impl Info {
    /// Reads lines of the form `name:value`; others are comments.
    pub(super) fn parse(text: &str) -> Self {
        let fields = text.lines().filter_map(|line| line.trim_end().split_once(':'));
        Self(fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// The field's value, if the server has the field.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The field's value as a number; 0 if the server does not have the field.
    pub(super) fn number(&self, name: &str) -> u64 {
        self.get(name).and_then(|value| value.parse().ok()).unwrap_or_default()
    }

    /// Keys of all databases, from lines such as `db0:keys=12,expires=3,avg_ttl=0`.
    pub(super) fn keys(&self) -> u64 {
        let databases = self.0.iter().filter(|(name, _)| name.starts_with("db"));
        databases
            .filter_map(|(_, value)| value.strip_prefix("keys=")?.split(',').next()?.parse::<u64>().ok())
            .sum()
    }
}
