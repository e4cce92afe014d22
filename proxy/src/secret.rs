//! The queue's secret, and the keys that are derived from it. All proxies of a queue read the same secret from Redis, so any of
//! them can open what another has sealed. Each purpose has its own key, derived with HKDF (RFC 5869).

use std::sync::{Arc, PoisonError, RwLock};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    error::Unspecified,
    hkdf::{HKDF_SHA256, Prk, Salt},
    hmac,
};
use tepal_shared::queue::{error::StoreError, intake::QueueSecret};
use tracing::info;

use crate::{error::ApiError, jobs::store::Store};

const SALT: &[u8] = b"tepal queue secret";
/// The purpose of each key. A label never changes its meaning: a new form of the content gets a new label.
const CURSORS: &[u8] = b"listing cursors, version 1";
const ADDRESSES: &[u8] = b"addresses of payers, version 1";
/// Bytes of an address's pseudonym, enough to avoid collisions within a queue.
const ADDRESS_BYTES: usize = 12;

/// No keys can be derived from the queue's secret.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretError {
    /// The secret cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The cryptography library failed.
    #[error("no keys can be derived from the queue's secret")]
    Derive(#[source] Unspecified),
}

/// The secret as it was read last.
#[derive(Default)]
pub(crate) struct Secret {
    current: RwLock<Option<Current>>,
}

struct Current {
    secret: QueueSecret,
    keys: Arc<Keys>,
}

/// The keys derived from one secret.
pub(crate) struct Keys {
    /// For cursors of `GET /jobs`.
    pub(crate) cursors: Seal,
    /// For the addresses of clients that keep large jobs.
    pub(crate) addresses: Pseudonym,
}

/// Makes pseudonyms: texts that represent another text without revealing it, the same in all proxies (HMAC-SHA256).
pub(crate) struct Pseudonym(hmac::Key);

/// Encrypts and authenticates small texts (AES-256-GCM).
pub(crate) struct Seal(LessSafeKey);

impl Secret {
    /// The keys. Reads the secret from Redis if it was not read before.
    pub(crate) async fn keys(&self, store: &Store) -> Result<Arc<Keys>, SecretError> {
        let known = self.read(|current| Arc::clone(&current.keys));
        match known {
            Some(keys) => Ok(keys),
            None => self.refresh(store).await,
        }
    }

    /// Reads the secret again. After Redis has lost its data, the secret is a new one.
    pub(crate) async fn refresh(&self, store: &Store) -> Result<Arc<Keys>, SecretError> {
        let secret = store.intake.secret().await?;
        let known = self.read(|current| (current.secret == secret).then(|| Arc::clone(&current.keys)));
        if let Some(Some(keys)) = known {
            return Ok(keys);
        }
        if known.is_some() {
            info!(action = "queue_secret_replaced", "cursors sealed with the old secret are rejected");
        }
        let keys = Arc::new(Keys::derive(secret.expose()).map_err(SecretError::Derive)?);
        let current = Current { secret, keys: Arc::clone(&keys) };
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(current);
        Ok(keys)
    }

    fn read<T>(&self, part: impl FnOnce(&Current) -> T) -> Option<T> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(part)
    }
}

impl From<SecretError> for ApiError {
    fn from(error: SecretError) -> Self {
        match error {
            SecretError::Store(error) => Self::Store(error),
            SecretError::Derive(_) => Self::NoKeys(Box::new(error)),
        }
    }
}

impl Keys {
    pub(crate) fn derive(secret: &[u8; 32]) -> Result<Self, Unspecified> {
        let root = Salt::new(HKDF_SHA256, SALT).extract(secret);
        let addresses = Pseudonym::derive(&root, ADDRESSES)?;
        Ok(Self { cursors: Seal::derive(&root, CURSORS)?, addresses })
    }
}

impl Pseudonym {
    fn derive(root: &Prk, label: &[u8]) -> Result<Self, Unspecified> {
        Ok(Self(root.expand(&[label], hmac::HMAC_SHA256)?.into()))
    }

    /// The pseudonym of the content, as URL-safe text.
    pub(crate) fn of(&self, content: &[u8]) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(&hmac::sign(&self.0, content).as_ref()[..ADDRESS_BYTES])
    }
}

impl Seal {
    fn derive(root: &Prk, label: &[u8]) -> Result<Self, Unspecified> {
        let key = UnboundKey::from(root.expand(&[label], &AES_256_GCM)?);
        Ok(Self(LessSafeKey::new(key)))
    }

    /// Encrypts the content. Only the same key and `context` open the result, which is URL-safe text. Its length depends only on
    /// the length of the content.
    ///
    /// # Errors
    /// When the operating system provides no random bytes.
    pub(crate) fn seal(&self, content: &[u8], context: &[u8]) -> Result<String, Unspecified> {
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).map_err(|_| Unspecified)?;
        let mut sealed = content.to_vec();
        self.0.seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(context),
            &mut sealed,
        )?;
        Ok(BASE64_URL_SAFE_NO_PAD.encode([&nonce[..], &sealed].concat()))
    }

    /// The content, or `None` if it was not sealed with this key and this `context`.
    pub(crate) fn open(&self, text: &str, context: &[u8]) -> Option<Vec<u8>> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut sealed = sealed.to_vec();
        let content = self.0.open_in_place(nonce, Aad::from(context), &mut sealed).ok()?;
        Some(content.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seal(secret: u8) -> Seal {
        Keys::derive(&[secret; 32]).unwrap().cursors
    }

    #[test]
    fn only_the_same_secret_and_context_open_what_was_sealed() {
        let sealed = seal(1).seal(b"content", b"context").unwrap();
        assert_eq!(seal(1).open(&sealed, b"context").as_deref(), Some(&b"content"[..]));
        assert_eq!(seal(2).open(&sealed, b"context"), None);
        assert_eq!(seal(1).open(&sealed, b"contexT"), None);
        assert_ne!(seal(1).seal(b"content", b"context").unwrap(), sealed);
    }

    #[test]
    fn a_pseudonym_is_the_same_for_all_proxies_of_a_queue_and_for_no_others() {
        let of = |secret, content: &[u8]| Keys::derive(&[secret; 32]).unwrap().addresses.of(content);
        assert_eq!(of(1, b"192.0.2.1"), of(1, b"192.0.2.1"));
        assert_ne!(of(1, b"192.0.2.1"), of(2, b"192.0.2.1"));
        assert_ne!(of(1, b"192.0.2.1"), of(1, b"192.0.2.2"));
        assert_eq!(of(1, b"192.0.2.1").len(), 16);
    }

    #[test]
    fn a_key_serves_one_purpose() {
        let root = Salt::new(HKDF_SHA256, SALT).extract(&[1; 32]);
        let other = Seal::derive(&root, b"another purpose").unwrap();
        assert_eq!(other.open(&seal(1).seal(b"content", b"").unwrap(), b""), None);
    }
}
