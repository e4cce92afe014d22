//! Tensors as messages of gRPC. Their elements are raw bytes beside the tensors, or in the list of their type.

use std::fmt::Display;

use prost::bytes::Bytes;
use tepal_proto::open_inference::{InferTensorContents, model_infer_request::InferInputTensor};

use super::{
    super::{DataType, Element, InputError, InputErrors, MOST_ERRORS, bytes, pointer::Pointer},
    Form, Given,
    binary::check,
    head::Head,
};

/// The field of a request with the raw bytes of all tensors.
pub const RAW: &str = "raw_input_contents";
/// The field of a tensor with its lists.
pub(super) const CONTENTS: &str = "contents";

/// Reads the inputs of a request, a list at this place. `raw`: one element for each of them, or none at all.
///
/// # Errors
/// The wrong elements, at most [`MOST_ERRORS`].
pub fn read(
    inputs: Vec<InferInputTensor>,
    raw: Vec<Bytes>,
    at: Pointer<'_>,
) -> Result<Vec<Given>, Vec<InputError>> {
    let mut errors = InputErrors::default();
    let raw_at = Pointer::ROOT.member(RAW);
    if !raw.is_empty() && raw.len() != inputs.len() {
        let detail =
            format!("must have one element for each of the {} inputs, not {}", inputs.len(), raw.len());
        errors.add(raw_at, "length", detail);
        return errors.or(Vec::new());
    }
    let mut raw = raw.into_iter();
    let mut tensors = Vec::with_capacity(inputs.len().min(MOST_ERRORS));
    for (index, input) in inputs.into_iter().enumerate() {
        if errors.is_full() {
            break;
        }
        let place = Place { at: at.element(index), raw_at: raw_at.element(index) };
        tensors.extend(place.read(input, raw.next(), &mut errors));
    }
    errors.or(tensors)
}

/// Where a tensor and its raw bytes are in the request.
#[derive(Clone, Copy)]
struct Place<'a> {
    at: Pointer<'a>,
    raw_at: Pointer<'a>,
}

impl Place<'_> {
    /// `None` only after an error.
    fn read(self, input: InferInputTensor, raw: Option<Bytes>, errors: &mut InputErrors) -> Option<Given> {
        let InferInputTensor { name, datatype, shape, contents, .. } = input;
        let head = Head::of(&name, &datatype, &shape, self.at, errors);
        let contents = contents.unwrap_or_default();
        let Some(raw) = raw else {
            let head = head?;
            let (list, data) = self.elements(&head, &contents, errors)?;
            return Some(Given { tensor: head.with(data), form: Form::List(list) });
        };
        if let Some(list) = lists(&contents).into_iter().find(|list| list.length > 0) {
            let at = self.at.member(CONTENTS);
            let detail = format!("must be empty, since the request has {RAW}");
            errors.add(at.member(list.name), "conflict", detail);
            return None;
        }
        let head = head?;
        check(&head, &raw, self.at, self.raw_at, errors);
        Some(Given { tensor: head.with(raw.into()), form: Form::Raw })
    }

    /// The name of the list with the elements, and their bytes.
    fn elements(
        self,
        head: &Head<'_>,
        contents: &InferTensorContents,
        errors: &mut InputErrors,
    ) -> Option<(&'static str, Vec<u8>)> {
        let at = self.at.member(CONTENTS);
        let datatype = head.datatype.as_str();
        let Some(own) = list_of(head.datatype) else {
            let detail = format!("must be empty: {datatype} has no list, its elements are sent in {RAW}");
            errors.add(at, "missing", detail);
            return None;
        };
        for list in lists(contents) {
            if list.name != own && list.length > 0 {
                let detail = format!("must be empty: the elements of {datatype} are in {own}");
                errors.add(at.member(list.name), "unknown_field", detail);
            }
        }
        let at = at.member(own);
        let length = lists(contents).into_iter().find(|list| list.name == own).map_or(0, |list| list.length);
        if length != head.elements {
            let (expected, shape) = (head.elements, &head.shape);
            let detail = format!("must have {expected} elements, as the shape {shape:?} says, not {length}");
            errors.add(at, "length", detail);
            return None;
        }
        Some((own, self::bytes_of(head.datatype, contents, at, errors)))
    }
}

/// A list of a tensor.
struct List {
    name: &'static str,
    length: usize,
}

fn lists(contents: &InferTensorContents) -> [List; 8] {
    let list = |name, length| List { name, length };
    [
        list("bool_contents", contents.bool_contents.len()),
        list("int_contents", contents.int_contents.len()),
        list("int64_contents", contents.int64_contents.len()),
        list("uint_contents", contents.uint_contents.len()),
        list("uint64_contents", contents.uint64_contents.len()),
        list("fp32_contents", contents.fp32_contents.len()),
        list("fp64_contents", contents.fp64_contents.len()),
        list("bytes_contents", contents.bytes_contents.len()),
    ]
}

/// The list of a type; `None` for a type that can only be raw.
fn list_of(datatype: DataType) -> Option<&'static str> {
    match datatype {
        DataType::Bool => Some("bool_contents"),
        DataType::Int8 | DataType::Int16 | DataType::Int32 => Some("int_contents"),
        DataType::Int64 => Some("int64_contents"),
        DataType::Uint8 | DataType::Uint16 | DataType::Uint32 => Some("uint_contents"),
        DataType::Uint64 => Some("uint64_contents"),
        DataType::Fp32 => Some("fp32_contents"),
        DataType::Fp64 => Some("fp64_contents"),
        DataType::Bytes => Some("bytes_contents"),
        DataType::Fp16 | DataType::Bf16 => None,
    }
}

/// The elements of the list at this place as bytes.
fn bytes_of(
    datatype: DataType,
    contents: &InferTensorContents,
    at: Pointer<'_>,
    errors: &mut InputErrors,
) -> Vec<u8> {
    match datatype {
        DataType::Bool => joined(&contents.bool_contents),
        DataType::Int8 => narrowed::<_, i8>(datatype, &contents.int_contents, at, errors),
        DataType::Int16 => narrowed::<_, i16>(datatype, &contents.int_contents, at, errors),
        DataType::Int32 => joined(&contents.int_contents),
        DataType::Int64 => joined(&contents.int64_contents),
        DataType::Uint8 => narrowed::<_, u8>(datatype, &contents.uint_contents, at, errors),
        DataType::Uint16 => narrowed::<_, u16>(datatype, &contents.uint_contents, at, errors),
        DataType::Uint32 => joined(&contents.uint_contents),
        DataType::Uint64 => joined(&contents.uint64_contents),
        DataType::Fp32 => joined(&contents.fp32_contents),
        DataType::Fp64 => joined(&contents.fp64_contents),
        DataType::Bytes => {
            let mut data = Vec::new();
            for (index, element) in contents.bytes_contents.iter().enumerate() {
                if bytes::append(&mut data, element).is_none() {
                    errors.add(at.element(index), "length", "must have less than 4 GiB");
                }
            }
            data
        }
        // They have no list.
        DataType::Fp16 | DataType::Bf16 => Vec::new(),
    }
}

fn joined<T: Element>(values: &[T]) -> Vec<u8> {
    let mut data = Vec::with_capacity(size_of_val(values));
    values.iter().for_each(|value| value.append(&mut data));
    data
}

/// The elements of a type that has no list of its own.
fn narrowed<V: Copy + Display, T: Element + TryFrom<V>>(
    datatype: DataType,
    values: &[V],
    at: Pointer<'_>,
    errors: &mut InputErrors,
) -> Vec<u8> {
    let mut data = Vec::with_capacity(values.len() * size_of::<T>());
    for (index, value) in values.iter().enumerate() {
        match T::try_from(*value) {
            Ok(element) => element.append(&mut data),
            Err(_) if errors.is_full() => break,
            Err(_) => {
                let detail = format!("must be an element of {}, not {value}", datatype.as_str());
                errors.add(at.element(index), "out_of_range", detail);
            }
        }
    }
    data
}

#[cfg(test)]
mod tests;
