//! Who sends a request, and what that caller may do. Without `API_KEYS_FILE` everybody may do everything, and this code does not
//! run.

mod caller;
pub(crate) mod command;
mod keyring;
mod refusal;
mod scope;
mod secret;
mod settings;
mod visibility;

use std::{
    path::Path,
    sync::{Arc, PoisonError, RwLock},
};

use axum::http::{HeaderMap, HeaderName, HeaderValue, header::AUTHORIZATION};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tepal_shared::process::telemetry;
use tracing::{error, info};

use self::keyring::Keyring;
pub(crate) use self::keyring::KeysError;
pub(crate) use self::{
    caller::Caller,
    refusal::Refusal,
    scope::{Scope, Scopes},
    settings::AccessArgs,
    visibility::Visibility,
};
use crate::reload::Files;

/// The header with the caller's key.
const KEY_HEADER: HeaderName = HeaderName::from_static("x-api-key");
/// The scheme of `Authorization` for a caller's key (RFC 6750, section 2.1). Many clients can send nothing else.
const BEARER: &[u8] = b"bearer ";
/// The digest that an unknown key is compared with. No key has it.
const NO_DIGEST: [u8; 32] = [0; 32];

/// The keys that these headers contain.
fn keys(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let bearer = headers.get_all(AUTHORIZATION).into_iter().filter_map(|value| bearer(value.as_bytes()));
    headers.get_all(KEY_HEADER).into_iter().map(HeaderValue::as_bytes).chain(bearer)
}

/// The token of a value of this scheme. The name of a scheme is not case-sensitive.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(BEARER.len())?;
    scheme.eq_ignore_ascii_case(BEARER).then(|| token.trim_ascii_start())
}

/// Removes the keys from the headers, so that nothing can log them.
pub(crate) fn remove_keys(headers: &mut HeaderMap) {
    headers.remove(KEY_HEADER);
    headers.remove(AUTHORIZATION);
}

/// The active keys.
#[derive(Debug)]
pub(crate) struct Access {
    keyring: RwLock<Arc<Keyring>>,
}

impl Access {
    /// Reads the file. This blocks, so call it only at the start.
    pub(crate) fn open(path: &Path) -> Result<(Self, Files<1>), KeysError> {
        let (file, [contents]) = Files::open([path.to_owned()])?;
        let keyring = Keyring::read(&contents)?;
        Ok((Self { keyring: RwLock::new(Arc::new(keyring)) }, file))
    }

    /// The sender of these headers. Each wrong key takes the same work, so that timing reveals nothing.
    pub(crate) fn identify(&self, headers: &HeaderMap) -> Result<Caller, Refusal> {
        let keyring = self.keyring();
        let mut given = keys(headers);
        let Some(text) = given.next() else { return Ok(Caller::Anonymous(keyring.anonymous())) };
        let id = secret::id_of(text).filter(|_| given.next().is_none());
        let id = id.ok_or(Refusal::MalformedKey)?;
        let digest: [u8; 32] = Sha256::digest(text).into();
        let key = keyring.key(id);
        let is_right = digest.ct_eq(key.map_or(&NO_DIGEST, |key| &key.digest));
        match key {
            Some(key) if bool::from(is_right) => Ok(Caller::Key(Arc::clone(key))),
            Some(_) => Err(Refusal::WrongSecret),
            None => Err(Refusal::UnknownKey),
        }
    }

    /// Loads each new version of the file, for as long as the process lives. A wrong file changes nothing, so a typing error
    /// locks nobody out.
    pub(crate) async fn follow(&self, file: &mut Files<1>) {
        info!(action = "api_keys_loaded", keys = self.keyring().len());
        loop {
            let read = file.changed().await.map_err(KeysError::from);
            match read.and_then(|[contents]| Keyring::read(&contents)) {
                Ok(keyring) => {
                    info!(action = "api_keys_loaded", keys = keyring.len());
                    self.replace(keyring);
                }
                Err(error) => error!(action = "api_keys_rejected", error = telemetry::chain(&error)),
            }
        }
    }

    fn replace(&self, mut keyring: Keyring) {
        keyring.keep_counts_of(&self.keyring());
        *self.keyring.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keyring);
    }

    /// What callers without a key may do.
    pub(crate) fn anonymous(&self) -> Scopes {
        self.keyring().anonymous()
    }

    /// One line about the keys.
    pub(crate) fn summary(&self) -> String {
        self.keyring().summary()
    }

    fn keyring(&self) -> Arc<Keyring> {
        Arc::clone(&self.keyring.read().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    /// The entry of a key with this secret.
    fn entry(id: &str, secret: &str, rest: &str) -> String {
        let digest = Sha256::digest(format!("tepal_{id}_{secret}"));
        format!("[[key]]\nid = \"{id}\"\nsha256 = \"{digest:x}\"\nscopes = [\"read\"]\n{rest}\n")
    }

    fn keyring(text: &str) -> Keyring {
        Keyring::read(text.as_bytes()).unwrap()
    }

    fn access(text: &str) -> Access {
        Access { keyring: RwLock::new(Arc::new(keyring(text))) }
    }

    fn identify(access: &Access, keys: &[&str]) -> Result<Caller, Refusal> {
        let mut headers = HeaderMap::new();
        for key in keys {
            headers.append(KEY_HEADER, key.parse().unwrap());
        }
        access.identify(&headers)
    }

    #[test]
    fn only_a_whole_key_opens() {
        let access = access(&(entry("a", "one", "") + &entry("b", "two", "")));
        let id = |keys: &[&str]| identify(&access, keys).map(|caller| caller.key_id().map(str::to_owned));
        assert_eq!(id(&["tepal_a_one"]), Ok(Some("a".to_owned())));
        assert_eq!(id(&["tepal_b_two"]), Ok(Some("b".to_owned())));
        assert_eq!(id(&[]), Ok(None));
        for wrong in ["tepal_a_two", "tepal_b_one", "tepal_a_One", "tepal_a_on", "tepal_a_onee"] {
            assert_eq!(id(&[wrong]), Err(Refusal::WrongSecret), "{wrong}");
        }
        assert_eq!(id(&["tepal_c_one"]), Err(Refusal::UnknownKey));
        assert_eq!(id(&["one"]), Err(Refusal::MalformedKey));
        assert_eq!(id(&["tepal_a_one", "tepal_a_one"]), Err(Refusal::MalformedKey));
    }

    #[test]
    fn a_key_can_be_a_bearer_token() {
        let access = access(&(entry("a", "one", "") + &entry("b", "two", "")));
        let identified = |headers: &[(HeaderName, &str)]| {
            let headers = headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap()));
            let caller = access.identify(&headers.collect::<HeaderMap>());
            caller.map(|caller| caller.key_id().map(str::to_owned))
        };
        for value in ["Bearer tepal_a_one", "bearer  tepal_a_one"] {
            assert_eq!(identified(&[(AUTHORIZATION, value)]), Ok(Some("a".to_owned())));
        }
        // Another scheme is for somebody else.
        assert_eq!(identified(&[(AUTHORIZATION, "Basic tepal_a_one")]), Ok(None));
        assert_eq!(identified(&[(AUTHORIZATION, "Bearer one")]), Err(Refusal::MalformedKey));
        let both = [(KEY_HEADER, "tepal_b_two"), (AUTHORIZATION, "Bearer tepal_a_one")];
        assert_eq!(identified(&both), Err(Refusal::MalformedKey));
    }

    #[test]
    fn what_a_key_has_spent_stays_spent_when_the_file_is_read_again() {
        let limited = |rest: &str| entry("a", "one", rest);
        let access = access(&limited("requests_per_minute = 10"));
        let limit = || access.keyring().key("a").unwrap().limit.clone().unwrap();
        let first = limit();
        access
            .replace(keyring(&(limited("requests_per_minute = 10\nowner = \"x\"") + &entry("b", "two", ""))));
        assert!(Arc::ptr_eq(&first, &limit()));
        access.replace(keyring(&limited("requests_per_minute = 11")));
        assert!(!Arc::ptr_eq(&first, &limit()));
    }

    #[test]
    fn opening_an_unusable_file_reports_why() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("keys.toml");
        let error = |path: &Path| Access::open(path).err().unwrap().to_string();
        assert!(error(&path).starts_with("cannot read "));
        std::fs::write(&path, "keys = 1").unwrap();
        assert!(
            error(&path).contains("the file has no `keys`") && error(&path).contains("; it has no [[key]]")
        );
    }
}
