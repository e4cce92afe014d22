//! `API_KEYS_FILE`: its content, and everything that can be wrong with it.

use std::{collections::HashMap, num::NonZeroU32, str::Utf8Error, sync::Arc};

use tepal_shared::job::{ModelName, owner};
use toml::{Table, Value};

use super::{
    scope::{Scope, Scopes},
    secret,
};
use crate::{edge::rate_limit::KeyLimit, reload::ReadError};

/// The file with the keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// It cannot be read.
    #[error(transparent)]
    Unreadable(#[from] ReadError),
    /// It is not text.
    #[error("it is not UTF-8")]
    NotUtf8(#[from] Utf8Error),
    /// It is not TOML.
    #[error("it is not TOML")]
    NotToml(#[from] toml::de::Error),
    /// Its content is wrong: a sentence for each mistake.
    #[error("{}", .0.join("; "))]
    Wrong(Vec<String>),
}

/// An API key.
#[derive(Debug)]
pub(crate) struct Key {
    /// Its name: a part of the key, but not secret.
    pub(crate) id: String,
    /// SHA-256 of the whole key.
    pub(super) digest: [u8; 32],
    /// The owner of its jobs.
    pub(super) owner: String,
    pub(super) scopes: Scopes,
    /// The models that it may use; `None` = all.
    pub(super) models: Option<Vec<String>>,
    /// `None` when its requests are not limited.
    pub(crate) limit: Option<Arc<KeyLimit>>,
}

/// All keys, and the rights of callers without one.
#[derive(Debug, Default)]
pub(crate) struct Keyring {
    keys: HashMap<String, Arc<Key>>,
    /// What callers without a key may do.
    anonymous: Scopes,
}

impl Keyring {
    /// Reads a file.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, KeysError> {
        let table = std::str::from_utf8(bytes)?.parse::<Table>()?;
        let mut file = KeyFile::default();
        let keyring = file.keyring(&table);
        if file.mistakes.is_empty() { Ok(keyring) } else { Err(KeysError::Wrong(file.mistakes)) }
    }

    pub(super) fn key(&self, id: &str) -> Option<&Arc<Key>> {
        self.keys.get(id)
    }

    pub(super) fn anonymous(&self) -> Scopes {
        self.anonymous
    }

    /// Number of keys.
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// One line about it.
    pub(crate) fn summary(&self) -> String {
        let noun = if self.len() == 1 { "key" } else { "keys" };
        let anonymous =
            if self.anonymous.is_empty() { "do nothing".to_owned() } else { self.anonymous.to_string() };
        format!("{} {noun}; callers without one may {anonymous}", self.len())
    }

    /// Keeps the counts of keys whose limit has not changed.
    pub(super) fn keep_counts_of(&mut self, old: &Self) {
        for (id, key) in &mut self.keys {
            let counted = old.key(id).and_then(|key| key.limit.as_ref());
            // The new key is not shared yet.
            if let (Some(key), Some(counted)) = (Arc::get_mut(key), counted)
                && key.limit.as_ref().is_some_and(|limit| limit.per_minute() == counted.per_minute())
            {
                key.limit = Some(Arc::clone(counted));
            }
        }
    }
}

/// Reads the file, and collects all its mistakes.
#[derive(Default)]
struct KeyFile {
    mistakes: Vec<String>,
}

impl KeyFile {
    fn keyring(&mut self, table: &Table) -> Keyring {
        self.only_known("the file", table, &["key", "anonymous"]);
        let mut keyring = Keyring { anonymous: self.anonymous(table), ..Keyring::default() };
        let keys = match table.get("key") {
            Some(Value::Array(keys)) => keys.as_slice(),
            Some(_) => {
                self.mistakes.push("`key` must be written as [[key]], once for each key".to_owned());
                return keyring;
            }
            None => &[],
        };
        if keys.is_empty() && !table.contains_key("anonymous") {
            self.mistakes.push("it has no [[key]]; `tepal-proxy key new` makes one".to_owned());
        }
        for (index, value) in keys.iter().enumerate() {
            let place = format!("key {}", index + 1);
            let Value::Table(fields) = value else {
                self.mistakes.push(format!("{place} must be written as [[key]] and its fields below"));
                continue;
            };
            let Some(key) = self.key(&place, fields) else { continue };
            if keyring.keys.contains_key(&key.id) {
                self.mistakes.push(format!("{place}: the id `{}` belongs to an earlier key", key.id));
            }
            keyring.keys.insert(key.id.clone(), Arc::new(key));
        }
        keyring
    }

    fn anonymous(&mut self, table: &Table) -> Scopes {
        match table.get("anonymous") {
            None => Scopes::default(),
            Some(Value::Table(fields)) => {
                self.only_known("[anonymous]", fields, &["scopes"]);
                self.scopes("[anonymous]", fields.get("scopes"))
            }
            Some(_) => {
                self.mistakes
                    .push("`anonymous` must be written as [anonymous] with its scopes below".to_owned());
                Scopes::default()
            }
        }
    }

    fn key(&mut self, place: &str, fields: &Table) -> Option<Key> {
        self.only_known(place, fields, &["id", "sha256", "scopes", "requests_per_minute", "owner", "models"]);
        let scopes = self.scopes(place, fields.get("scopes"));
        if matches!(fields.get("scopes"), Some(Value::Array(scopes)) if scopes.is_empty()) {
            self.mistakes.push(format!("{place}: scopes is empty; a key without a scope is useless"));
        }
        let id = self.text(place, fields, "id", "1 to 32 lower-case letters, digits and -", secret::is_id);
        let digest =
            self.text(place, fields, "sha256", "64 hexadecimal digits", |text| digest(text).is_some());
        let owner = if fields.contains_key("owner") {
            self.text(place, fields, "owner", "1 to 64 letters, digits and . _ - @", owner::is_owner)
        } else {
            id
        };
        let limit = self.limit(place, fields.get("requests_per_minute"));
        let models = fields.get("models").map(|models| self.models(place, models));
        Some(Key {
            id: id?.to_owned(),
            digest: digest.and_then(self::digest)?,
            owner: owner?.to_owned(),
            scopes,
            models,
            limit,
        })
    }

    fn limit(&mut self, place: &str, value: Option<&Value>) -> Option<Arc<KeyLimit>> {
        let per_minute = match value {
            None => 0,
            Some(value) => {
                let number = value.as_integer().and_then(|number| u32::try_from(number).ok());
                number.unwrap_or_else(|| {
                    let most = u32::MAX;
                    self.mistakes.push(format!(
                        "{place}: requests_per_minute must be a whole number from 0 (no limit) to {most}"
                    ));
                    0
                })
            }
        };
        NonZeroU32::new(per_minute).map(|per_minute| Arc::new(KeyLimit::new(per_minute)))
    }

    fn models(&mut self, place: &str, value: &Value) -> Vec<String> {
        let names = value.as_array().map(Vec::as_slice).unwrap_or_default();
        let names: Vec<_> = names.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        let is_whole = value.as_array().is_some_and(|list| list.len() == names.len() && !list.is_empty());
        if !is_whole || !names.iter().all(|name| ModelName::is_valid(name)) {
            self.mistakes.push(format!(r#"{place}: models must be a list of model names, as in ["iris"]"#));
        }
        names
    }

    fn scopes(&mut self, place: &str, value: Option<&Value>) -> Scopes {
        let Some(Value::Array(words)) = value else {
            self.mistakes.push(format!(r#"{place}: scopes must be a list, as in ["read", "submit"]"#));
            return Scopes::default();
        };
        let scope = |word: &Value| -> Option<Scope> {
            let scope = word.as_str().and_then(|word| word.parse().ok());
            if scope.is_none() {
                let found =
                    word.as_str().map_or_else(|| "a scope".to_owned(), |word| format!("the scope `{word}`"));
                self.mistakes.push(format!("{place}: {found} is not one of read, submit, admin"));
            }
            scope
        };
        words.iter().filter_map(scope).collect()
    }

    fn text<'a>(
        &mut self,
        place: &str,
        fields: &'a Table,
        name: &str,
        expected: &str,
        is_right: impl Fn(&str) -> bool,
    ) -> Option<&'a str> {
        let text = fields.get(name).and_then(Value::as_str).filter(|text| is_right(text));
        if text.is_none() {
            let found = if fields.contains_key(name) { "must be" } else { "is missing:" };
            self.mistakes.push(format!("{place}: {name} {found} {expected}"));
        }
        text
    }

    fn only_known(&mut self, place: &str, fields: &Table, known: &[&str]) {
        for name in fields.keys().filter(|name| !known.contains(&name.as_str())) {
            self.mistakes.push(format!("{place} has no `{name}`; known: {}", known.join(", ")));
        }
    }
}

fn digest(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, place) in digest.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&text[place..place + 2], 16).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use std::{error::Error as _, str::Utf8Error};

    use tepal_shared::process::telemetry;

    use super::*;

    const DIGEST: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn mistakes(text: &str) -> Vec<String> {
        let error = Keyring::read(text.as_bytes()).unwrap_err();
        let KeysError::Wrong(mistakes) = error else { panic!("{error:?}") };
        mistakes
    }

    #[test]
    fn a_file_with_everything_is_read() {
        let text = format!(
            "[anonymous]\nscopes = [\"read\"]\n\
             [[key]]\nid = \"a\"\nsha256 = \"{DIGEST}\"\nscopes = [\"read\", \"submit\"]\n\
             [[key]]\nid = \"b\"\nsha256 = \"{DIGEST}\"\nscopes = [\"admin\"]\nowner = \"ops\"\nrequests_per_minute = 60\n"
        );
        let keyring = Keyring::read(text.as_bytes()).unwrap();
        assert_eq!(keyring.summary(), "2 keys; callers without one may read");
        let (a, b) = (keyring.key("a").unwrap(), keyring.key("b").unwrap());
        assert_eq!(
            (a.owner.as_str(), a.limit.is_none(), a.scopes.to_string().as_str()),
            ("a", true, "read, submit")
        );
        assert_eq!((b.owner.as_str(), b.limit.as_ref().unwrap().per_minute().get()), ("ops", 60));
        assert_eq!((a.digest[0], a.digest[31]), (0xba, 0xad));
    }

    #[test]
    fn callers_without_a_key_alone_are_fine_and_nobody_at_all_is_not() {
        assert_eq!(
            Keyring::read(b"[anonymous]\nscopes = []").unwrap().summary(),
            "0 keys; callers without one may do nothing"
        );
        for empty in ["", "# nothing\n"] {
            assert_eq!(mistakes(empty), ["it has no [[key]]; `tepal-proxy key new` makes one"]);
        }
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let text = format!(
            "keys = 1\n[anonymous]\nscope = []\n\
             [[key]]\nid = \"A\"\nsha256 = \"12\"\nscopes = [\"write\", 5]\nrequests_per_minute = -1\nowner = \"*\"\nmodels = [\"a:b\"]\nsecret = 1\n\
             [[key]]\nid = \"b\"\nsha256 = \"{DIGEST}\"\nscopes = [\"read\"]\n\
             [[key]]\nid = \"b\"\nsha256 = \"{DIGEST}\"\nscopes = []\n\
             [[key]]\n"
        );
        assert_eq!(
            mistakes(&text),
            [
                "the file has no `keys`; known: key, anonymous",
                "[anonymous] has no `scope`; known: scopes",
                r#"[anonymous]: scopes must be a list, as in ["read", "submit"]"#,
                "key 1 has no `secret`; known: id, sha256, scopes, requests_per_minute, owner, models",
                "key 1: the scope `write` is not one of read, submit, admin",
                "key 1: a scope is not one of read, submit, admin",
                "key 1: id must be 1 to 32 lower-case letters, digits and -",
                "key 1: sha256 must be 64 hexadecimal digits",
                "key 1: owner must be 1 to 64 letters, digits and . _ - @",
                "key 1: requests_per_minute must be a whole number from 0 (no limit) to 4294967295",
                r#"key 1: models must be a list of model names, as in ["iris"]"#,
                "key 3: scopes is empty; a key without a scope is useless",
                "key 3: the id `b` belongs to an earlier key",
                r#"key 4: scopes must be a list, as in ["read", "submit"]"#,
                "key 4: id is missing: 1 to 32 lower-case letters, digits and -",
                "key 4: sha256 is missing: 64 hexadecimal digits",
            ]
        );
    }

    #[test]
    fn invalid_toml_is_reported_with_its_position_and_its_cause() {
        let error = Keyring::read(b"[[key]\n").unwrap_err();
        assert!(error.source().is_some_and(|cause| cause.is::<toml::de::Error>()), "{error:?}");
        let text = telemetry::chain(&error);
        assert!(text.starts_with("it is not TOML: TOML parse error at line 1"), "{text}");
        let error = Keyring::read(b"\xff").unwrap_err();
        assert!(error.source().is_some_and(|cause| cause.is::<Utf8Error>()), "{error:?}");
        assert!(telemetry::chain(&error).starts_with("it is not UTF-8: "), "{error:?}");
        assert_eq!(mistakes("key = 1"), ["`key` must be written as [[key]], once for each key"]);
    }
}
