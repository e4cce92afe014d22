//! The form in which Redis keeps a result that is tensors: a byte that no JSON text begins with, then each tensor as
//! [`stored`](super::stored) says, behind the length of its name and its name.

use super::{
    Tensor, View,
    stored::{self, StoredError, StoredTensor},
};

/// The first byte. `lua/complete.lua` knows it.
const MARK: u8 = 2;

/// Whether a result is tensors and not JSON.
#[must_use]
pub fn is_tensors(result: &[u8]) -> bool {
    result.first() == Some(&MARK)
}

/// The stored form of a result.
#[must_use]
pub fn write<'a>(tensors: impl IntoIterator<Item = View<'a>>) -> Vec<u8> {
    let mut bytes = vec![MARK];
    for View { name, datatype, shape, data } in tensors {
        bytes.reserve(data.len() + name.len() + stored::most_overhead(shape.len() + 1));
        stored::append_text(&mut bytes, name);
        stored::append(&mut bytes, datatype, &shape, data);
    }
    bytes
}

/// The tensors of a result. Their elements are not copied.
///
/// # Errors
/// When the bytes have another form.
pub fn read(result: &[u8]) -> Result<Vec<View<'_>>, StoredError> {
    let mut rest = result.strip_prefix(&[MARK]).ok_or(StoredError::Incomplete)?;
    let mut tensors = Vec::new();
    while !rest.is_empty() {
        let name = stored::text(&mut rest)?;
        let StoredTensor { datatype, shape, data } = stored::tensor(&mut rest)?;
        tensors.push(View { name, datatype, shape, data });
    }
    Ok(tensors)
}

/// The same tensors with elements of their own.
///
/// # Errors
/// As [`read`].
pub fn read_owned(result: &[u8]) -> Result<Vec<Tensor>, StoredError> {
    Ok(read(result)?.into_iter().map(Tensor::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DataType;

    fn tensor(name: &str, datatype: DataType, shape: &[usize], data: &[u8]) -> Tensor {
        Tensor { name: name.to_owned(), datatype, shape: shape.to_vec(), data: data.to_vec() }
    }

    fn stored(tensors: &[Tensor]) -> Vec<u8> {
        write(tensors.iter().map(Tensor::view))
    }

    #[test]
    fn what_was_written_is_read() {
        let tensors = [
            tensor("x", DataType::Fp32, &[1, 2], &[0, 0, 128, 63, 0, 0, 0, 64]),
            tensor("", DataType::Bytes, &[], b"\x01\0\0\0a"),
            tensor("large", DataType::Uint8, &[300], &[7; 300]),
        ];
        assert_eq!(read_owned(&stored(&tensors)).unwrap(), tensors);
        assert_eq!(read(&stored(&[])), Ok(vec![]));
    }

    /// Jobs outlive an upgrade, so these bytes never change.
    #[test]
    fn the_bytes_are_those_of_the_format() {
        let tensors = [
            tensor("x", DataType::Int16, &[2, 1], &[1, 0, 2, 0]),
            tensor("s", DataType::Bytes, &[1], b"\0\0\0\0"),
        ];
        assert_eq!(stored(&tensors), b"\x02\x01x\x62\x02\x01\x01\0\x02\0\x01s\xd1\x01\x04\0\0\0\0");
    }

    #[test]
    fn damaged_bytes_are_refused() {
        let whole = stored(&[tensor("x", DataType::Int16, &[2, 1], &[1, 0, 2, 0])]);
        for end in 2..whole.len() {
            assert!(read(&whole[..end]).is_err(), "{end}");
        }
        for bad in [&b""[..], b"[[1]]", b"\x02\x01\xff\x11\x01\x01", b"\x02\x05x"] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn json_begins_with_another_byte() {
        assert!(is_tensors(&stored(&[])));
        for json in ["{}", "[[1]]", " 1", "\"a\"", "null", "@17", "#17"] {
            assert!(!is_tensors(json.as_bytes()));
        }
    }
}
