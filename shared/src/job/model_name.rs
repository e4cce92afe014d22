//! The name of a model.

use std::{
    collections::HashSet,
    fmt,
    str::FromStr,
    sync::{LazyLock, Mutex, PoisonError},
};

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

/// Largest number of bytes of a name.
const LONGEST: usize = 64;

/// Every name that this process has seen. A process sees few, and needs them until it ends.
static NAMES: LazyLock<Mutex<HashSet<&'static str>>> = LazyLock::new(Mutex::default);

/// The name of a model: 1 to 64 letters, digits, `.`, `_` and `-`; the first is a letter or a digit. It is part of keys in Redis. Names
/// are interned, so that a claim of a job is cheap to copy. Never intern a name that a client invents: look it up first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct ModelName(&'static str);

/// The text is not the name of a model.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "`{0}` is not a model name: 1 to {LONGEST} letters, digits, `.`, `_` and `-`, the first a letter or a digit"
)]
pub struct NotAModelName(String);

impl ModelName {
    /// A name whose keys stand for those of all models, in checks of rights.
    pub(crate) const ANY: Self = Self("any");

    /// Whether the text is a valid name.
    #[must_use]
    pub fn is_valid(text: &str) -> bool {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        text.len() <= LONGEST
            && text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
            && text.bytes().all(is_allowed)
    }

    /// The name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.0
    }
}

impl FromStr for ModelName {
    type Err = NotAModelName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if !Self::is_valid(text) {
            return Err(NotAModelName(text.chars().take(2 * LONGEST).collect()));
        }
        let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = names.get(text) {
            return Ok(Self(known));
        }
        let name: &'static str = Box::leak(text.into());
        names.insert(name);
        Ok(Self(name))
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl<'de> Deserialize<'de> for ModelName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_names_are_one_name() {
        let [one, other] = ["iris", "iris"].map(|text| text.parse::<ModelName>().unwrap());
        assert!(std::ptr::eq(one.as_str(), other.as_str()));
    }

    #[test]
    fn a_name_is_safe_in_keys_and_folders() {
        for good in ["iris", "a", "resnet50-v1.5_int8", "7b", &"x".repeat(64)] {
            assert!(ModelName::is_valid(good), "{good}");
        }
        for bad in ["", ".", "..", "-x", "_x", "a b", "a:b", "a/b", "a*", "{a}", "é", "a\n", &"x".repeat(65)]
        {
            assert!(bad.parse::<ModelName>().is_err(), "{bad}");
        }
    }
}
