//! The form in which Redis keeps the tensors of a job: one after the other, each with its datatype and shape, without names. It is
//! part of the stored format of a queue, so it must stay the same as long as the format's number does.
//!
//! | bytes | meaning |
//! | --- | --- |
//! | 1 | number of the datatype * 16 + number of axes; 15 = the number of axes follows |
//! | 0 or more | the number of axes, if there are 15 or more |
//! | 1 or more for each axis | its length |
//! | BYTES only: 1 or more | number of bytes of all elements |
//! | the rest | the elements, as [`Tensor::data`](super::Tensor::data) contains them |
//!
//! Numbers have seven bits in each byte, the lowest ones first. All bytes of a number but the last have their high bit set (LEB128).
//! So an Iris job takes 19 bytes, as many as its JSON text.

use super::{DataType, bytes};

/// The number of axes follows.
const MANY_AXES: usize = 15;
/// More than any model has; a shape of a damaged record must not take much memory.
const MOST_AXES: usize = 256;

/// A tensor of a job as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTensor<'a> {
    /// Element type.
    pub datatype: DataType,
    /// The lengths of all axes.
    pub shape: Vec<usize>,
    /// The elements. There are as many as the shape says.
    pub data: &'a [u8],
}

/// Stored bytes that are no tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoredError {
    /// They end within a tensor.
    #[error("it ends within a tensor")]
    Incomplete,
    /// A number of a datatype that does not exist.
    #[error("it has a tensor of the unknown datatype {0}")]
    DataType(u8),
    /// A shape that no tensor has.
    #[error("it has a tensor with an impossible shape")]
    Shape,
    /// A text is not UTF-8.
    #[error("it has a text that is not UTF-8")]
    Text,
    /// No content, see [`content`](crate::content).
    #[error("it is neither a JSON value nor a raw body")]
    Content,
    /// The elements of BYTES do not fit the shape.
    #[error("it has a tensor whose strings do not fit its shape")]
    Strings,
}

/// Appends a tensor. The data must have as many elements as the shape says.
pub fn append(stored: &mut Vec<u8>, datatype: DataType, shape: &[usize], data: &[u8]) {
    let axes = shape.len();
    stored.push(datatype.number() << 4 | axes.min(MANY_AXES) as u8);
    if axes >= MANY_AXES {
        append_number(stored, axes);
    }
    shape.iter().for_each(|length| append_number(stored, *length));
    if datatype.width().is_none() {
        append_number(stored, data.len());
    }
    stored.extend_from_slice(data);
}

/// Most bytes of a stored tensor beside its data.
#[must_use]
pub fn most_overhead(axes: usize) -> usize {
    const NUMBER: usize = (usize::BITS as usize).div_ceil(7);
    1 + NUMBER * (axes + 2)
}

/// Reads all tensors.
///
/// # Errors
/// When the bytes are not exactly some tensors.
pub fn read(mut stored: &[u8]) -> Result<Vec<StoredTensor<'_>>, StoredError> {
    let mut tensors = Vec::with_capacity(1);
    while !stored.is_empty() {
        tensors.push(tensor(&mut stored)?);
    }
    Ok(tensors)
}

/// Takes the first tensor.
pub(super) fn tensor<'a>(stored: &mut &'a [u8]) -> Result<StoredTensor<'a>, StoredError> {
    let (first, rest) = stored.split_first().ok_or(StoredError::Incomplete)?;
    *stored = rest;
    let datatype = DataType::of_number(first >> 4).ok_or(StoredError::DataType(first >> 4))?;
    let axes = match usize::from(first & 0xf) {
        MANY_AXES => number(stored)?,
        axes => axes,
    };
    if axes > MOST_AXES {
        return Err(StoredError::Shape);
    }
    let shape = (0..axes).map(|_| number(stored)).collect::<Result<Vec<_>, _>>()?;
    let elements = shape.iter().try_fold(1_usize, |elements, length| elements.checked_mul(*length));
    let elements = elements.ok_or(StoredError::Shape)?;
    let length = match datatype.width() {
        Some(width) => elements.checked_mul(width).ok_or(StoredError::Shape)?,
        None => number(stored)?,
    };
    let (data, rest) = stored.split_at_checked(length).ok_or(StoredError::Incomplete)?;
    *stored = rest;
    if datatype.width().is_none() && !has_strings(data, elements) {
        return Err(StoredError::Strings);
    }
    Ok(StoredTensor { datatype, shape, data })
}

/// Whether the data is exactly this many elements of BYTES.
fn has_strings(data: &[u8], elements: usize) -> bool {
    let (count, bytes) = bytes::elements(data)
        .fold((0, 0), |(count, bytes), element| (count + 1, bytes + size_of::<u32>() + element.len()));
    (count, bytes) == (elements, data.len())
}

pub(crate) fn append_text(stored: &mut Vec<u8>, text: &str) {
    append_number(stored, text.len());
    stored.extend_from_slice(text.as_bytes());
}

/// Takes a text with its length.
pub(crate) fn text<'a>(stored: &mut &'a [u8]) -> Result<&'a str, StoredError> {
    let length = number(stored)?;
    let (text, rest) = stored.split_at_checked(length).ok_or(StoredError::Incomplete)?;
    *stored = rest;
    std::str::from_utf8(text).map_err(|_| StoredError::Text)
}

pub(crate) fn append_number(stored: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        stored.push(number as u8 | 0x80);
        number >>= 7;
    }
    stored.push(number as u8);
}

pub(crate) fn number(stored: &mut &[u8]) -> Result<usize, StoredError> {
    let mut number = 0_usize;
    for shift in (0..usize::BITS).step_by(7) {
        let (byte, rest) = stored.split_first().ok_or(StoredError::Incomplete)?;
        *stored = rest;
        let bits = usize::from(byte & 0x7f);
        let shifted = bits << shift;
        if shifted >> shift != bits {
            return Err(StoredError::Shape);
        }
        number |= shifted;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(StoredError::Shape)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(tensors: &[(DataType, &[usize], &[u8])]) -> Vec<u8> {
        let mut stored = Vec::new();
        tensors.iter().for_each(|(datatype, shape, data)| append(&mut stored, *datatype, shape, data));
        stored
    }

    #[test]
    fn tensors_are_read_as_they_were_stored() {
        let many = [1; 20];
        let tensors: [(DataType, &[usize], &[u8]); 6] = [
            (DataType::Fp32, &[1, 4], &[7; 16]),
            (DataType::Uint8, &[3, 200], &[9; 600]),
            (DataType::Int64, &[], &[1; 8]),
            (DataType::Bytes, &[2], b"\x01\0\0\0a\0\0\0\0"),
            (DataType::Bool, &many, &[1]),
            (DataType::Fp16, &[2, 0], &[]),
        ];
        let bytes = stored(&tensors);
        let found = read(&bytes).unwrap();
        let found: Vec<_> =
            found.iter().map(|tensor| (tensor.datatype, &tensor.shape[..], tensor.data)).collect();
        assert_eq!(found, tensors);
        for cut in 1..bytes.len() {
            let is_between = read(&bytes[..cut]).is_ok_and(|tensors| tensors.len() < 6);
            assert!(is_between || read(&bytes[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn the_form_of_a_job_is_that_of_the_format() {
        let row: Vec<u8> = [5.1_f32, 3.5, 1.4, 0.2].iter().flat_map(|value| value.to_le_bytes()).collect();
        let bytes = stored(&[(DataType::Fp32, &[1, 4], &row)]);
        assert_eq!(bytes.len(), "[[5.1,3.5,1.4,0.2]]".len());
        assert_eq!(bytes[..3], [0xb2, 1, 4]);
        let image = stored(&[(DataType::Fp32, &[1, 3, 224, 224], &vec![0; 4 * 3 * 224 * 224])]);
        assert!(image.len() <= 4 * 3 * 224 * 224 + most_overhead(4));
        let numbers = DataType::ALL.map(DataType::number);
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]);
    }

    #[test]
    fn damaged_bytes_are_named() {
        let largest = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        for (bytes, error) in [
            (vec![0xe0], StoredError::DataType(14)),
            (vec![0x11], StoredError::Incomplete),
            (vec![0x11, 2, 0], StoredError::Incomplete),
            ([&[0x12], &largest[..], &[2]].concat(), StoredError::Shape),
            ([&[0x11], &[0xff; 9][..], &[2]].concat(), StoredError::Shape),
            (vec![0x1f, 0xff, 0x7f], StoredError::Shape),
            (vec![0xd1, 2, 4, 0, 0, 0, 0], StoredError::Strings),
            (vec![0xd1, 1, 5, 0, 0, 0, 0, 0], StoredError::Strings),
        ] {
            assert_eq!(read(&bytes), Err(error), "{bytes:?}");
        }
        assert_eq!(read(&[]), Ok(Vec::new()));
    }
}
