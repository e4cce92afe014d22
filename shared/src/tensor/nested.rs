//! Writes the elements of a tensor as JSON lists, nested as its shape says.

use std::io::{self, Write};

use super::{DataType, Element, bytes, open_inference::json::write_list, with_element};

/// Writes the elements. Those of an empty shape are one value.
///
/// # Errors
/// When `text` cannot take them.
pub(crate) fn write(
    datatype: DataType,
    data: &[u8],
    shape: &[usize],
    text: &mut impl Write,
) -> io::Result<()> {
    with_element!(
        datatype,
        T => write_with(text, shape, &mut T::all(data), &|element, text| element.write_json(text)),
        BYTES => write_with(text, shape, &mut bytes::elements(data), &bytes::write_json)
    )
}

/// The same with another way to write an element.
///
/// # Errors
/// As [`write()`].
pub(super) fn write_with<T, W: Write>(
    text: &mut W,
    shape: &[usize],
    elements: &mut impl Iterator<Item = T>,
    write: &impl Fn(T, &mut W) -> io::Result<()>,
) -> io::Result<()> {
    match shape.split_first() {
        None => elements.next().map_or(Ok(()), |element| write(element, text)),
        Some((length, inner)) => {
            write_list(0..*length, text, |_, text| write_with(text, inner, elements, write))
        }
    }
}
