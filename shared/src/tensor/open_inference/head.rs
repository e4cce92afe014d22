//! What JSON and the binary form have in common: name, shape and datatype of a tensor.

use std::fmt::Display;

use serde_json::Number;

use super::{
    super::{DataType, InputErrors, MOST_ERRORS, Tensor, pointer::Pointer},
    Given,
};
use crate::json::{JsonRef, ObjectRef};

pub(super) const NAME: &str = "name";
pub(super) const SHAPE: &str = "shape";
pub(super) const DATATYPE: &str = "datatype";

/// `TensorShape::MaxDimensions()` of TensorFlow, with the batch axis.
const MOST_AXES: usize = 254;
/// No request contains more elements.
pub(super) const MOST_ELEMENTS: usize = 1 << 30;

/// A tensor without its elements.
pub(super) struct Head<'a> {
    pub(super) name: &'a str,
    pub(super) shape: Vec<usize>,
    pub(super) datatype: DataType,
    /// Number of elements as the shape says, at most [`MOST_ELEMENTS`].
    pub(super) elements: usize,
}

/// Reads each tensor of a list with `read`.
pub(super) fn read_list(
    list: JsonRef<'_>,
    at: Pointer<'_>,
    errors: &mut InputErrors,
    mut read: impl FnMut(JsonRef<'_>, Pointer<'_>, &mut InputErrors) -> Option<Given>,
) -> Vec<Given> {
    let JsonRef::List(entries) = list else {
        errors.add(at, "type", format!("must be a list of tensors, not {}", list.kind()));
        return Vec::new();
    };
    let mut tensors = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        if errors.is_full() {
            break;
        }
        tensors.extend(read(entry, at.element(index), errors));
    }
    tensors
}

/// The members of a tensor, whatever their names.
pub(super) fn any_members<'a>(
    entry: JsonRef<'a>,
    known: &[&str],
    at: Pointer<'_>,
    errors: &mut InputErrors,
) -> Option<ObjectRef<'a>> {
    let JsonRef::Object(members) = entry else {
        errors.add(at, "type", format!("must be an object with {}, not {}", known.join(", "), entry.kind()));
        return None;
    };
    Some(members)
}

/// The members of a tensor. Members with other names than `known` are refused.
pub(super) fn members<'a>(
    entry: JsonRef<'a>,
    known: &[&str],
    at: Pointer<'_>,
    errors: &mut InputErrors,
) -> Option<ObjectRef<'a>> {
    let members = any_members(entry, known, at, errors)?;
    for name in members.names().filter(|name| !known.contains(name)).take(MOST_ERRORS) {
        let detail = format!("is not a member of a tensor; known are {}", known.join(", "));
        errors.add(at.member(name), "unknown_field", detail);
    }
    Some(members)
}

impl<'a> Head<'a> {
    /// Reads all three members, so that all of their mistakes are reported.
    pub(super) fn read(members: ObjectRef<'a>, at: Pointer<'_>, errors: &mut InputErrors) -> Option<Self> {
        let mut member = |name: &'static str| {
            let value = members.get(name);
            if value.is_none() {
                errors.add(at.member(name), "missing", "is missing");
            }
            value
        };
        let (name, shape, datatype) = (member(NAME), member(SHAPE), member(DATATYPE));
        let name = name.and_then(|value| text(value, at.member(NAME), errors));
        let shape = shape.and_then(|value| read_shape(value, at.member(SHAPE), errors));
        let datatype = datatype.and_then(|value| read_datatype(value, at.member(DATATYPE), errors));
        let (shape, elements) = shape?;
        Some(Self { name: name?, shape, datatype: datatype?, elements })
    }

    /// Checks what a message has.
    pub(super) fn of(
        name: &'a str,
        datatype: &str,
        shape: &[i64],
        at: Pointer<'_>,
        errors: &mut InputErrors,
    ) -> Option<Self> {
        let datatype = named(datatype, at.member(DATATYPE), errors);
        if !are_few(shape.len(), at.member(SHAPE), errors) {
            return None;
        }
        let lengths = shape.iter().enumerate().map(|(index, given)| {
            let length = usize::try_from(*given).ok().filter(|length| *length > 0);
            if length.is_none() {
                let at = at.member(SHAPE);
                errors.add(at.element(index), "out_of_range", wrong_length(given));
            }
            length
        });
        // All axes are read, so that all mistakes are reported.
        let lengths: Vec<Option<usize>> = lengths.collect();
        let (shape, elements) = whole(lengths, at.member(SHAPE), errors)?;
        Some(Self { name, shape, datatype: datatype?, elements })
    }

    /// The tensor with these elements.
    pub(super) fn with(self, data: Vec<u8>) -> Tensor {
        Tensor { name: self.name.to_owned(), datatype: self.datatype, shape: self.shape, data }
    }
}

fn text<'a>(value: JsonRef<'a>, at: Pointer<'_>, errors: &mut InputErrors) -> Option<&'a str> {
    if let JsonRef::String(text) = value {
        return Some(text);
    }
    errors.add(at, "type", format!("must be a string, not {}", value.kind()));
    None
}

fn read_datatype(value: JsonRef<'_>, at: Pointer<'_>, errors: &mut InputErrors) -> Option<DataType> {
    named(text(value, at, errors)?, at, errors)
}

fn named(word: &str, at: Pointer<'_>, errors: &mut InputErrors) -> Option<DataType> {
    let datatype = DataType::named(word);
    if datatype.is_none() {
        let names = DataType::ALL.map(DataType::as_str).join(", ");
        errors.add(at, "unknown_value", format!("must be one of {names}"));
    }
    datatype
}

/// The shape, and the number of elements.
fn read_shape(value: JsonRef<'_>, at: Pointer<'_>, errors: &mut InputErrors) -> Option<(Vec<usize>, usize)> {
    let JsonRef::List(axes) = value else {
        errors.add(at, "type", format!("must be a list of the lengths of the axes, not {}", value.kind()));
        return None;
    };
    if !are_few(axes.len(), at, errors) {
        return None;
    }
    let lengths = axes.iter().enumerate().map(|(index, axis)| length(axis, at.element(index), errors));
    // All axes are read, so that all mistakes are reported.
    let lengths: Vec<Option<usize>> = lengths.collect();
    whole(lengths, at, errors)
}

fn are_few(axes: usize, at: Pointer<'_>, errors: &mut InputErrors) -> bool {
    if axes > MOST_AXES {
        errors.add(at, "length", format!("must have at most {MOST_AXES} axes, not {axes}"));
    }
    axes <= MOST_AXES
}

/// The shape, and the number of elements, unless a length is missing.
fn whole(
    lengths: Vec<Option<usize>>,
    at: Pointer<'_>,
    errors: &mut InputErrors,
) -> Option<(Vec<usize>, usize)> {
    let shape = lengths.into_iter().collect::<Option<Vec<usize>>>()?;
    let elements = shape.iter().try_fold(1_usize, |elements, length| elements.checked_mul(*length));
    let elements = elements.filter(|elements| *elements <= MOST_ELEMENTS);
    if elements.is_none() {
        errors.add(at, "out_of_range", format!("must have at most {MOST_ELEMENTS} elements in all"));
    }
    Some((shape, elements?))
}

fn wrong_length(given: &dyn Display) -> String {
    format!("must be a whole number from 1, not {given}")
}

/// The length of an axis.
fn length(axis: JsonRef<'_>, at: Pointer<'_>, errors: &mut InputErrors) -> Option<usize> {
    let length = axis
        .as_number()
        .and_then(Number::as_u64)
        .and_then(|length| usize::try_from(length).ok())
        .filter(|length| *length > 0);
    if length.is_none() {
        let mut refuse = |code, given: &dyn Display| {
            errors.add(at, code, wrong_length(given));
        };
        match (axis, axis.large()) {
            (JsonRef::Number(given), _) => refuse("out_of_range", given),
            (_, Some(given)) => refuse("out_of_range", &given),
            _ => refuse("type", &axis.kind()),
        }
    }
    length
}
