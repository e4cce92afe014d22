//! Converts between our tensors and ONNX Runtime's values.

use std::{fmt::Debug, hash::Hash, str::Utf8Error};

use half::{bf16, f16};
use ort::{
    session::SessionInputValue,
    value::{
        DynMap, DynMapValueType, DynValue, IntoTensorElementType, PrimitiveTensorElementType,
        TensorElementType, Value, ValueType,
    },
};
use tepal_shared::tensor::{DataType, Element, Tensor, bytes};

/// A value cannot be converted. The text is safe for clients.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConvertError {
    #[error("the input `{name}` has a string that is not UTF-8, and ONNX Runtime takes no other")]
    NotUtf8 {
        name: String,
        #[source]
        source: Utf8Error,
    },
    #[error("the input `{name}` has a string that contains a NUL, which ONNX Runtime does not take")]
    Nul { name: String },
    #[error("the input `{name}` cannot be passed on")]
    Input {
        name: String,
        #[source]
        source: ort::Error,
    },
    #[error("the output `{name}` cannot be read")]
    Output {
        name: String,
        #[source]
        source: ort::Error,
    },
    #[error("the output `{name}` is missing")]
    Missing { name: String },
    #[error("the output `{name}` is {given}, which cannot be returned")]
    Type { name: String, given: String },
    #[error("the output `{name}` has maps with different keys")]
    Keys { name: String },
    #[error("the output `{name}` has a string of over 4 GiB")]
    Length { name: String },
}

/// Our name of an element type; `None` if the Open Inference Protocol has no such type.
pub(super) fn datatype(element: TensorElementType) -> Option<DataType> {
    Some(match element {
        TensorElementType::Bool => DataType::Bool,
        TensorElementType::Uint8 => DataType::Uint8,
        TensorElementType::Uint16 => DataType::Uint16,
        TensorElementType::Uint32 => DataType::Uint32,
        TensorElementType::Uint64 => DataType::Uint64,
        TensorElementType::Int8 => DataType::Int8,
        TensorElementType::Int16 => DataType::Int16,
        TensorElementType::Int32 => DataType::Int32,
        TensorElementType::Int64 => DataType::Int64,
        TensorElementType::Float16 => DataType::Fp16,
        TensorElementType::Bfloat16 => DataType::Bf16,
        TensorElementType::Float32 => DataType::Fp32,
        TensorElementType::Float64 => DataType::Fp64,
        TensorElementType::String => DataType::Bytes,
        _ => return None,
    })
}

/// Type and shape in which a value of this type is returned, with -1 for a variable axis. `None` if it cannot be returned.
///
/// Classifiers of scikit-learn return a sequence of maps from classes to probabilities. It becomes a tensor with a row for
/// each map and a column for each class.
pub(super) fn form(of: &ValueType) -> Option<(DataType, Vec<i64>)> {
    match of {
        ValueType::Tensor { ty, shape, .. } => Some((datatype(*ty)?, shape.to_vec())),
        ValueType::Sequence(element) => match **element {
            ValueType::Map {
                key: TensorElementType::Int64 | TensorElementType::String,
                value: TensorElementType::Float32,
            } => Some((DataType::Fp32, vec![-1, -1])),
            _ => None,
        },
        _ => None,
    }
}

/// Calls a function with the Rust type of a [`DataType`] that is not BYTES.
macro_rules! for_type {
    ($datatype:expr, $function:ident($($argument:expr),*), BYTES => $bytes:expr) => {
        match $datatype {
            DataType::Bool => $function::<bool>($($argument),*),
            DataType::Uint8 => $function::<u8>($($argument),*),
            DataType::Uint16 => $function::<u16>($($argument),*),
            DataType::Uint32 => $function::<u32>($($argument),*),
            DataType::Uint64 => $function::<u64>($($argument),*),
            DataType::Int8 => $function::<i8>($($argument),*),
            DataType::Int16 => $function::<i16>($($argument),*),
            DataType::Int32 => $function::<i32>($($argument),*),
            DataType::Int64 => $function::<i64>($($argument),*),
            DataType::Fp16 => $function::<f16>($($argument),*),
            DataType::Bf16 => $function::<bf16>($($argument),*),
            DataType::Fp32 => $function::<f32>($($argument),*),
            DataType::Fp64 => $function::<f64>($($argument),*),
            DataType::Bytes => $bytes,
        }
    };
}

pub(super) fn to_value(tensor: &Tensor) -> Result<SessionInputValue<'static>, ConvertError> {
    for_type!(tensor.datatype, from_numbers(tensor), BYTES => from_strings(tensor))
}

fn from_numbers<T>(tensor: &Tensor) -> Result<SessionInputValue<'static>, ConvertError>
where
    T: Element + PrimitiveTensorElementType + Debug + 'static,
{
    let elements: Vec<T> = T::all(&tensor.data).collect();
    let value = Value::from_array((tensor.shape.as_slice(), elements));
    value.map(Into::into).map_err(|source| ConvertError::Input { name: tensor.name.clone(), source })
}

fn from_strings(tensor: &Tensor) -> Result<SessionInputValue<'static>, ConvertError> {
    let name = || tensor.name.clone();
    let text = |element| std::str::from_utf8(element).map(str::to_owned);
    let texts = bytes::elements(&tensor.data).map(text).collect::<Result<Vec<_>, _>>();
    let texts = texts.map_err(|source| ConvertError::NotUtf8 { name: name(), source })?;
    if texts.iter().any(|text| text.contains('\0')) {
        return Err(ConvertError::Nul { name: name() });
    }
    let value = Value::from_string_array((tensor.shape.as_slice(), texts.as_slice()));
    value.map(Into::into).map_err(|source| ConvertError::Input { name: name(), source })
}

pub(super) fn from_value(name: &str, value: &DynValue) -> Result<Tensor, ConvertError> {
    let unreturnable = || ConvertError::Type { name: name.to_owned(), given: value.dtype().to_string() };
    let (datatype, shape) = form(value.dtype()).ok_or_else(unreturnable)?;
    let (shape, data) = match value.dtype() {
        ValueType::Sequence(_) => probabilities(name, value)?,
        _ => {
            let data = for_type!(datatype, to_numbers(name, value), BYTES => to_strings(name, value))?;
            (shape.into_iter().map(|length| usize::try_from(length).unwrap_or(0)).collect(), data)
        }
    };
    Ok(Tensor { name: name.to_owned(), datatype, shape, data })
}

fn unreadable(name: &str) -> impl Fn(ort::Error) -> ConvertError {
    |source| ConvertError::Output { name: name.to_owned(), source }
}

fn to_numbers<T>(name: &str, value: &DynValue) -> Result<Vec<u8>, ConvertError>
where
    T: Element + PrimitiveTensorElementType,
{
    let (_, elements) = value.try_extract_tensor::<T>().map_err(unreadable(name))?;
    let mut data = Vec::with_capacity(size_of_val(elements));
    elements.iter().for_each(|element| element.append(&mut data));
    Ok(data)
}

fn to_strings(name: &str, value: &DynValue) -> Result<Vec<u8>, ConvertError> {
    let (_, texts) = value.try_extract_strings().map_err(unreadable(name))?;
    let mut data = Vec::new();
    for text in texts {
        bytes::append(&mut data, text.as_bytes())
            .ok_or_else(|| ConvertError::Length { name: name.to_owned() })?;
    }
    Ok(data)
}

/// Shape and bytes of a sequence of maps, with the values in the order of the keys.
fn probabilities(name: &str, value: &DynValue) -> Result<(Vec<usize>, Vec<u8>), ConvertError> {
    let maps = value.try_extract_sequence::<DynMapValueType>().map_err(unreadable(name))?;
    let mut data = Vec::new();
    let mut expected = None;
    for map in &maps {
        let (keys, values) = match map.dtype() {
            ValueType::Map { key: TensorElementType::String, .. } => ordered::<String>(map),
            _ => ordered::<i64>(map),
        }
        .map_err(unreadable(name))?;
        if *expected.get_or_insert_with(|| keys.clone()) != keys {
            return Err(ConvertError::Keys { name: name.to_owned() });
        }
        values.into_iter().for_each(|value| value.append(&mut data));
    }
    Ok((vec![maps.len(), expected.map_or(0, |keys| keys.len())], data))
}

/// The keys of a map in their order, as text, and their values.
fn ordered<K>(map: &DynMap) -> ort::Result<(Vec<String>, Vec<f32>)>
where
    K: IntoTensorElementType + Clone + Hash + Ord + ToString,
{
    let mut pairs = map.try_extract_key_values::<K, f32>()?;
    pairs.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(pairs.into_iter().map(|(key, value)| (key.to_string(), value)).unzip())
}
