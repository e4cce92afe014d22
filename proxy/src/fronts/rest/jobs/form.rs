//! The form of a cursor: all that a client may know of it.

/// A nonce, a position and an authentication tag, 45 bytes in base64url.
pub(crate) const PATTERN: &str = "^[A-Za-z0-9_-]{60}$";
const LENGTH: usize = 60;

/// Whether the text may be a cursor; see [`PATTERN`].
pub(super) fn has_form(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    text.len() == LENGTH && text.bytes().all(is_allowed)
}
