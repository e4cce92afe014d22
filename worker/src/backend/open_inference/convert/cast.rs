//! Numbers of another width than described. Servers choose the width themselves: scikit-learn answers with FP64 to FP32.

use half::{bf16, f16};
use tepal_shared::tensor::{DataType, Element, Tensor};

use super::ConvertError;

/// The same numbers as this type: floats as other floats, rounded to the nearest, and integers as other integers. Another tensor stays
/// as it is, for the check of the description to report.
///
/// # Errors
/// When the type cannot hold a number.
pub(super) fn to(datatype: DataType, tensor: Tensor) -> Result<Tensor, ConvertError> {
    if tensor.datatype == datatype {
        return Ok(tensor);
    }
    let data = if let Some(values) = integers(&tensor) {
        from_integers(datatype, &values)?
    } else if let Some(values) = floats(&tensor) {
        from_floats(datatype, &values)?
    } else {
        None
    };
    Ok(match data {
        Some(data) => Tensor { datatype, data, ..tensor },
        None => tensor,
    })
}

/// Its elements, if they are integers.
fn integers(tensor: &Tensor) -> Option<Vec<i128>> {
    fn all<T: Element + Into<i128>>(tensor: &Tensor) -> Option<Vec<i128>> {
        Some(T::all(&tensor.data).map(Into::into).collect())
    }
    match tensor.datatype {
        DataType::Uint8 => all::<u8>(tensor),
        DataType::Uint16 => all::<u16>(tensor),
        DataType::Uint32 => all::<u32>(tensor),
        DataType::Uint64 => all::<u64>(tensor),
        DataType::Int8 => all::<i8>(tensor),
        DataType::Int16 => all::<i16>(tensor),
        DataType::Int32 => all::<i32>(tensor),
        DataType::Int64 => all::<i64>(tensor),
        _ => None,
    }
}

/// `None` if the type is none of integers.
fn from_integers(datatype: DataType, values: &[i128]) -> Result<Option<Vec<u8>>, ConvertError> {
    fn data<T: Element + TryFrom<i128>>(
        datatype: DataType,
        values: &[i128],
    ) -> Result<Option<Vec<u8>>, ConvertError> {
        let mut data = Vec::with_capacity(size_of::<T>() * values.len());
        for value in values {
            T::try_from(*value).map_err(|_| too_large(value, datatype))?.append(&mut data);
        }
        Ok(Some(data))
    }
    match datatype {
        DataType::Uint8 => data::<u8>(datatype, values),
        DataType::Uint16 => data::<u16>(datatype, values),
        DataType::Uint32 => data::<u32>(datatype, values),
        DataType::Uint64 => data::<u64>(datatype, values),
        DataType::Int8 => data::<i8>(datatype, values),
        DataType::Int16 => data::<i16>(datatype, values),
        DataType::Int32 => data::<i32>(datatype, values),
        DataType::Int64 => data::<i64>(datatype, values),
        _ => Ok(None),
    }
}

/// Its elements, if they are floats.
fn floats(tensor: &Tensor) -> Option<Vec<f64>> {
    fn all<T: Element>(tensor: &Tensor) -> Option<Vec<f64>> {
        Some(T::all(&tensor.data).map(Element::as_f64).collect())
    }
    match tensor.datatype {
        DataType::Fp16 => all::<f16>(tensor),
        DataType::Bf16 => all::<bf16>(tensor),
        DataType::Fp32 => all::<f32>(tensor),
        DataType::Fp64 => all::<f64>(tensor),
        _ => None,
    }
}

/// `None` if the type is none of floats.
fn from_floats(datatype: DataType, values: &[f64]) -> Result<Option<Vec<u8>>, ConvertError> {
    fn data<T: Element>(
        datatype: DataType,
        values: &[f64],
        nearest: impl Fn(f64) -> T,
    ) -> Result<Option<Vec<u8>>, ConvertError> {
        let mut data = Vec::with_capacity(size_of::<T>() * values.len());
        for value in values {
            let element = nearest(*value);
            if value.is_finite() && !element.is_finite() {
                return Err(too_large(value, datatype));
            }
            element.append(&mut data);
        }
        Ok(Some(data))
    }
    match datatype {
        DataType::Fp16 => data(datatype, values, f16::from_f64),
        DataType::Bf16 => data(datatype, values, bf16::from_f64),
        DataType::Fp32 => data(datatype, values, |value| value as f32),
        DataType::Fp64 => data(datatype, values, |value| value),
        _ => Ok(None),
    }
}

fn too_large(value: &impl ToString, datatype: DataType) -> ConvertError {
    ConvertError::Value { value: value.to_string(), datatype: datatype.as_str() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::backend::grpc::elements::joined;

    fn tensor<T: Element>(datatype: DataType, values: &[T]) -> Tensor {
        Tensor { name: "x".to_owned(), datatype, shape: vec![values.len()], data: joined(values) }
    }

    #[test]
    fn floats_become_the_nearest_of_another_width() {
        let doubles = tensor(DataType::Fp64, &[0.1, f64::NAN, f64::NEG_INFINITY]);
        let floats = to(DataType::Fp32, doubles).unwrap();
        assert_eq!(floats.datatype, DataType::Fp32);
        let floats: Vec<_> = f32::all(&floats.data).collect();
        assert!(floats[0] == 0.1 && floats[1].is_nan() && floats[2] == f32::NEG_INFINITY, "{floats:?}");
        let halves = tensor(DataType::Fp16, &[f16::from_f32(-0.5)]);
        assert_eq!(to(DataType::Fp64, halves).unwrap(), tensor(DataType::Fp64, &[-0.5]));
    }

    #[test]
    fn integers_become_those_of_another_width_and_sign() {
        let wide = tensor(DataType::Int64, &[-1_i64, 127]);
        assert_eq!(to(DataType::Int8, wide).unwrap(), tensor(DataType::Int8, &[-1_i8, 127]));
        let unsigned = tensor(DataType::Uint64, &[7_u64]);
        assert_eq!(to(DataType::Int32, unsigned).unwrap(), tensor(DataType::Int32, &[7_i32]));
    }

    #[test]
    fn a_number_beyond_the_described_type_is_an_error() {
        let error = to(DataType::Fp32, tensor(DataType::Fp64, &[1e39])).unwrap_err().to_string();
        assert!(
            error.starts_with("The model answered with 1000000") && error.ends_with(", which no FP32 is"),
            "{error}"
        );
        let error = to(DataType::Uint8, tensor(DataType::Int64, &[-1_i64])).unwrap_err().to_string();
        assert_eq!(error, "The model answered with -1, which no UINT8 is");
    }

    #[test]
    fn nothing_else_is_converted() {
        let integers = tensor(DataType::Int64, &[1_i64]);
        assert_eq!(to(DataType::Fp32, integers.clone()), Ok(integers));
        let floats = tensor(DataType::Fp32, &[1.0_f32]);
        assert_eq!(to(DataType::Int32, floats.clone()), Ok(floats));
        let booleans = tensor(DataType::Bool, &[true]);
        assert_eq!(to(DataType::Uint8, booleans.clone()), Ok(booleans));
    }
}
