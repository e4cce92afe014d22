//! Converts between our tensors and tract's.

use tepal_shared::tensor::{DataType, Tensor, bytes};
use tract_onnx::prelude::{
    Blob, Datum, DatumType, IntoTensor as _, Tensor as TractTensor, TractError, TractResult, tensor1,
};

/// tract's name of an element type; `None` if tract has no such type.
pub(super) fn datum_type(datatype: DataType) -> Option<DatumType> {
    Some(match datatype {
        DataType::Bool => DatumType::Bool,
        DataType::Uint8 => DatumType::U8,
        DataType::Uint16 => DatumType::U16,
        DataType::Uint32 => DatumType::U32,
        DataType::Uint64 => DatumType::U64,
        DataType::Int8 => DatumType::I8,
        DataType::Int16 => DatumType::I16,
        DataType::Int32 => DatumType::I32,
        DataType::Int64 => DatumType::I64,
        DataType::Fp16 => DatumType::F16,
        DataType::Fp32 => DatumType::F32,
        DataType::Fp64 => DatumType::F64,
        DataType::Bytes => DatumType::String,
        DataType::Bf16 => return None,
    })
}

/// The element type in which an output of this type is read. tract has a type of its own for integers that are lengths of axes.
pub(super) fn datatype(datum_type: DatumType) -> Option<DataType> {
    match datum_type {
        DatumType::TDim => Some(DataType::Int64),
        DatumType::Blob => Some(DataType::Bytes),
        _ => DataType::ALL.into_iter().find(|datatype| self::datum_type(*datatype) == Some(datum_type)),
    }
}

/// tract multiplies the lengths of the axes even if one of them is 0. No input of a job has such an axis.
fn check_shape(tensor: &Tensor) -> TractResult<()> {
    let mut lengths = tensor.shape.iter().filter(|length| **length > 0);
    let size = lengths.try_fold(1_isize, |size, length| size.checked_mul(isize::try_from(*length).ok()?));
    let too_large = || TractError::msg(format!("the input `{}` has axes that are too long", tensor.name));
    size.map(|_| ()).ok_or_else(too_large)
}

pub(super) fn to_tract(tensor: &Tensor) -> TractResult<TractTensor> {
    let name = &tensor.name;
    check_shape(tensor)?;
    if tensor.datatype == DataType::Bytes {
        let texts = bytes::elements(&tensor.data).map(|element| String::from_utf8(element.to_vec()));
        let texts = texts.collect::<Result<Vec<_>, _>>().map_err(|error| {
            TractError::new(error).context(format!("a string of the input `{name}` is not UTF-8"))
        })?;
        return tensor1(&texts).into_tensor().into_shape(&tensor.shape);
    }
    let datatype = tensor.datatype.as_str();
    let datum_type = datum_type(tensor.datatype).ok_or_else(|| {
        TractError::msg(format!("the input `{name}` is {datatype}, which ONNX models here cannot be given"))
    })?;
    let mut converted = TractTensor::zero_dt(datum_type, &tensor.shape)?;
    let data = converted.as_bytes_mut();
    if data.len() != tensor.data.len() {
        return Err(TractError::msg(format!(
            "the input `{name}` has {} bytes, not {}",
            tensor.data.len(),
            data.len()
        )));
    }
    data.copy_from_slice(&tensor.data);
    Ok(converted)
}

pub(super) fn from_tract(name: &str, tensor: &TractTensor) -> TractResult<Tensor> {
    let unknown = || {
        let datum_type = tensor.datum_type();
        TractError::msg(format!("the output `{name}` is of the type {datum_type:?}, which cannot be read"))
    };
    let datatype = datatype(tensor.datum_type()).ok_or_else(unknown)?;
    let data = match tensor.datum_type() {
        DatumType::TDim => tensor.cast_to::<i64>()?.as_bytes().to_vec(),
        DatumType::String => joined::<String>(tensor, String::as_bytes)?,
        DatumType::Blob => joined::<Blob>(tensor, |blob| blob)?,
        _ => tensor.as_bytes().to_vec(),
    };
    Ok(Tensor { name: name.to_owned(), datatype, shape: tensor.shape().to_vec(), data })
}

fn joined<T: Datum>(tensor: &TractTensor, as_bytes: impl Fn(&T) -> &[u8]) -> TractResult<Vec<u8>> {
    let mut data = Vec::new();
    for element in tensor.try_as_plain_ram()?.as_slice::<T>()? {
        bytes::append(&mut data, as_bytes(element))
            .ok_or_else(|| TractError::msg("a string has over 4 GiB"))?;
    }
    Ok(data)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use tract_onnx::prelude::{IntoTensor as _, TDim};

    use super::*;

    fn tensor(datatype: DataType, data: Vec<u8>) -> Tensor {
        Tensor { name: "x".to_owned(), datatype, shape: vec![2, 1], data }
    }

    #[test]
    fn each_type_but_one_survives_the_engine() {
        for datatype in DataType::ALL.into_iter().filter(|datatype| *datatype != DataType::Bf16) {
            let strings = || b"\x02\0\0\0\xc3\xa9\0\0\0\0".to_vec();
            let data = datatype.width().map_or_else(strings, |width| vec![1; 2 * width]);
            let given = tensor(datatype, data);
            assert_eq!(from_tract("x", &to_tract(&given).unwrap()).unwrap(), given);
        }
        let error = to_tract(&tensor(DataType::Bf16, vec![0; 4])).unwrap_err().to_string();
        assert_eq!(error, "the input `x` is BF16, which ONNX models here cannot be given");
    }

    #[test]
    fn long_axes_of_a_tensor_without_elements_are_refused() {
        for datatype in [DataType::Fp32, DataType::Bytes] {
            let empty = |shape: &[usize]| Tensor { shape: shape.to_vec(), ..tensor(datatype, vec![]) };
            let fits = empty(&[0, 1 << 30, 1 << 30, 3]);
            assert_eq!(from_tract("x", &to_tract(&fits).unwrap()).unwrap(), fits);
            for shape in [&[0, 1 << 32, 1 << 31][..], &[1 << 62, 2, 0], &[0, usize::MAX]] {
                let error = to_tract(&empty(shape)).unwrap_err().to_string();
                assert_eq!(error, "the input `x` has axes that are too long", "{shape:?}");
            }
        }
    }

    #[test]
    fn lengths_of_axes_are_integers() {
        let lengths = tensor1(&[TDim::from(3), TDim::from(-1)]).into_tensor();
        let read = from_tract("y", &lengths).unwrap();
        assert_eq!((read.datatype, read.shape), (DataType::Int64, vec![2]));
        assert_eq!(read.data, [3_i64.to_le_bytes(), (-1_i64).to_le_bytes()].concat());
    }

    #[test]
    fn an_unknown_type_and_wrong_bytes_are_named() {
        let quantized = TractTensor::zero_dt(DatumType::QU8(Default::default()), &[1]).unwrap();
        let error = from_tract("y", &quantized).unwrap_err().to_string();
        assert!(error.starts_with("the output `y` is of the type QU8"), "{error}");
        let error = to_tract(&tensor(DataType::Fp32, vec![0; 7])).unwrap_err().to_string();
        assert_eq!(error, "the input `x` has 7 bytes, not 8");
        let error =
            to_tract(&tensor(DataType::Bytes, b"\x01\0\0\0\xff\0\0\0\0".to_vec())).unwrap_err().to_string();
        assert_eq!(error, "a string of the input `x` is not UTF-8");
    }
}
