//! Elements of tensors that a message has in a list.

use tepal_shared::tensor::{Element, bytes};

/// The elements of a list.
pub(in crate::backend) fn joined<T: Element>(values: &[T]) -> Vec<u8> {
    let mut data = Vec::with_capacity(size_of_val(values));
    values.iter().for_each(|value| value.append(&mut data));
    data
}

/// The elements of a type that has no list of its own.
///
/// # Errors
/// The first value that the type cannot hold.
pub(in crate::backend) fn narrowed<V: Copy, T: Element + TryFrom<V>>(values: &[V]) -> Result<Vec<u8>, V> {
    let mut data = Vec::with_capacity(values.len() * size_of::<T>());
    for value in values {
        T::try_from(*value).map_err(|_| *value)?.append(&mut data);
    }
    Ok(data)
}

/// Strings, each with its length before it. `None` if one has more than 4 GiB.
pub(in crate::backend) fn joined_strings<'a>(mut strings: impl Iterator<Item = &'a [u8]>) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    strings.try_for_each(|string| bytes::append(&mut data, string))?;
    Some(data)
}
