//! The form of a key, `tepal_<id>_<secret>`. The id is not secret and identifies the key. The secret has 256 random bits: nobody
//! can guess it, so a fast hash is enough to store it.

const PREFIX: &str = "tepal_";
const LONGEST_ID: usize = 32;
/// Longer keys are invalid.
const LONGEST: usize = 256;

/// The id of a well-formed key.
pub(super) fn id_of(key: &[u8]) -> Option<&str> {
    let key = std::str::from_utf8(key).ok().filter(|key| key.len() <= LONGEST)?;
    let (id, secret) = key.strip_prefix(PREFIX)?.split_once('_')?;
    (is_id(id) && !secret.is_empty()).then_some(id)
}

/// Whether the text is a valid id: 1 to 32 lower-case letters, digits and `-`.
pub(super) fn is_id(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=LONGEST_ID).contains(&text.len()) && text.bytes().all(is_allowed)
}

/// A new id and key.
pub(super) fn generate() -> Result<(String, String), getrandom::Error> {
    let mut secret = [[0; 16]; 2];
    getrandom::fill(secret.as_flattened_mut())?;
    let [first, second] = secret.map(u128::from_be_bytes);
    let id = format!("{:010x}", getrandom::u64()? >> 24);
    let key = format!("{PREFIX}{id}_{first:032x}{second:032x}");
    Ok((id, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_has_its_form_and_is_like_no_other() {
        let (id, key) = generate().unwrap();
        assert_eq!(id_of(key.as_bytes()), Some(id.as_str()));
        assert_eq!((id.len(), key.len()), (10, 6 + 10 + 1 + 64));
        let (other_id, other) = generate().unwrap();
        assert!(other_id != id && other[17..] != key[17..]);
    }

    #[test]
    fn what_has_not_the_form_of_a_key_is_none() {
        let long = format!("tepal_a_{}", "b".repeat(LONGEST));
        for bad in
            ["", "tepal_", "tepal_a", "tepal_a_", "tepal__b", "tepal_A_b", "Tepal_a_b", "tepal_ü_b", &long]
        {
            assert_eq!(id_of(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(id_of(b"tepal_a_\xff"), None);
        assert_eq!(id_of(b"tepal_shop-1_b_c"), Some("shop-1"));
    }
}
