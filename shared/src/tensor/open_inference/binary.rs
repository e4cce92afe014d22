//! Binary form: a JSON document whose tensors have `parameters.binary_data_size` in place of `data`, and after it their elements as raw
//! bytes, in the same order. A header contains the length of the JSON. See `extension_binary_data.md` of Triton's protocol.

use std::io::{self, Write};

use serde_json::Number;

use super::{
    super::{DataType, InputError, InputErrors, MOST_ERRORS, View, bytes, pointer::Pointer},
    Form, Given,
    head::{self, DATATYPE, Head, NAME, SHAPE},
    json::{self, DATA},
};
use crate::json::{JsonRef, ObjectRef};

/// The header with the length of the JSON.
pub const HEADER: &str = "Inference-Header-Content-Length";

const PARAMETERS: &str = "parameters";
const BINARY_DATA_SIZE: &str = "binary_data_size";
/// The parameter of tensors that only processes on the server's machine can send.
const SHARED_MEMORY_REGION: &str = "shared_memory_region";

/// What becomes of members and parameters of a tensor that this reader does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// They are errors.
    Refused,
    /// They are ignored, as the servers of the protocol do. `null` counts as absent.
    Ignored,
}

/// Divides a body into its JSON and its raw tensors.
///
/// # Errors
/// A sentence without its subject, the header, if its value is no length of a part of the body.
pub fn split<'a>(header: &[u8], body: &'a [u8]) -> Result<(&'a [u8], &'a [u8]), String> {
    let is_number = !header.is_empty() && header.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(header).ok().filter(|_| is_number);
    let Some(text) = text else { return Err("must be a number of bytes".to_owned()) };
    let length = text.parse().ok().filter(|length| *length > 0);
    let parts = length.and_then(|length| body.split_at_checked(length));
    parts.ok_or_else(|| format!("must be from 1 to the length of the body, {}, not {text}", body.len()))
}

/// Reads a list of tensors at this place of the request. A tensor has either `data` or bytes of `raw`.
///
/// # Errors
/// The wrong elements, at most [`MOST_ERRORS`](crate::tensor::MOST_ERRORS).
pub fn read<'a>(
    list: impl Into<JsonRef<'a>>,
    raw: &[u8],
    unknown: Unknown,
    at: Pointer<'_>,
) -> Result<Vec<Given>, Vec<InputError>> {
    let mut errors = InputErrors::default();
    let mut raw = Raw { rest: raw, unknown };
    let tensors =
        head::read_list(list.into(), at, &mut errors, |entry, at, errors| raw.read_tensor(entry, at, errors));
    let surplus = raw.rest.len();
    if surplus > 0 && errors.is_empty() {
        let detail =
            format!("must announce all raw bytes of the body; {surplus} bytes follow the last tensor");
        errors.add(at, "length", detail);
    }
    errors.or(tensors)
}

struct Raw<'a> {
    /// The raw bytes that no tensor has taken yet.
    rest: &'a [u8],
    unknown: Unknown,
}

impl<'a> Raw<'a> {
    fn read_tensor(
        &mut self,
        entry: JsonRef<'_>,
        at: Pointer<'_>,
        errors: &mut InputErrors,
    ) -> Option<Given> {
        let known = [NAME, SHAPE, DATATYPE, PARAMETERS, DATA];
        let members = match self.unknown {
            Unknown::Refused => head::members(entry, &known, at, errors)?,
            Unknown::Ignored => head::any_members(entry, &known, at, errors)?,
        };
        let head = Head::read(members, at, errors);
        let parameters = at.member(PARAMETERS);
        let size_at = parameters.member(BINARY_DATA_SIZE);
        let size = match self.member(members, PARAMETERS) {
            Some(value) => Some(self.read_size(value, parameters, errors)?),
            None => None,
        };
        match (self.member(members, DATA), size.flatten()) {
            (Some(data), None) => Some(json::read_data(head?, data, at.member(DATA), errors)),
            (None, Some(size)) => {
                let raw = self.take(size, size_at, errors);
                let (head, raw) = (head?, raw?);
                check(&head, raw, at, size_at, errors);
                Some(Given { tensor: head.with(raw.to_vec()), form: Form::Raw })
            }
            (Some(_), Some(_)) => {
                errors.add(
                    at.member(DATA),
                    "unknown_field",
                    "must be omitted, since the tensor has raw bytes",
                );
                None
            }
            (None, None) => {
                let detail = format!("is missing, and so is {PARAMETERS}/{BINARY_DATA_SIZE}");
                errors.add(at.member(DATA), "missing", detail);
                None
            }
        }
    }

    /// The member, unless it counts as absent.
    fn member<'m>(&self, members: ObjectRef<'m>, name: &str) -> Option<JsonRef<'m>> {
        let value = members.get(name)?;
        let is_absent = self.unknown == Unknown::Ignored && matches!(value, JsonRef::Null);
        (!is_absent).then_some(value)
    }

    /// The only known parameter of a tensor. `None` after an error, `Some(None)` without the parameter.
    fn read_size(
        &self,
        value: JsonRef<'_>,
        at: Pointer<'_>,
        errors: &mut InputErrors,
    ) -> Option<Option<u64>> {
        let JsonRef::Object(parameters) = value else {
            errors.add(
                at,
                "type",
                format!("must be an object with {BINARY_DATA_SIZE}, not {}", value.kind()),
            );
            return None;
        };
        for name in parameters.names().filter(|name| self.is_refused(name)).take(MOST_ERRORS) {
            let detail = match self.unknown {
                Unknown::Refused => format!("is not a parameter of a tensor; known is {BINARY_DATA_SIZE}"),
                Unknown::Ignored => "is not supported; the request must contain the elements".to_owned(),
            };
            errors.add(at.member(name), "unknown_field", detail);
        }
        let Some(size) = self.member(parameters, BINARY_DATA_SIZE) else { return Some(None) };
        let bytes = size.as_number().and_then(Number::as_u64);
        if bytes.is_none() {
            let given = size.as_number().map_or_else(|| size.kind().to_owned(), Number::to_string);
            let detail = format!("must be a number of bytes, not {given}");
            errors.add(at.member(BINARY_DATA_SIZE), "type", detail);
            return None;
        }
        Some(bytes)
    }

    fn is_refused(&self, parameter: &str) -> bool {
        match self.unknown {
            Unknown::Refused => parameter != BINARY_DATA_SIZE,
            Unknown::Ignored => parameter == SHARED_MEMORY_REGION,
        }
    }

    fn take(&mut self, size: u64, at: Pointer<'_>, errors: &mut InputErrors) -> Option<&'a [u8]> {
        let left = self.rest.len();
        let parts = usize::try_from(size).ok().and_then(|size| self.rest.split_at_checked(size));
        let Some((taken, rest)) = parts else {
            errors.add(
                at,
                "length",
                format!("must be at most the raw bytes that are left, {left}, not {size}"),
            );
            return None;
        };
        self.rest = rest;
        Some(taken)
    }
}

/// Checks that the bytes are the elements of the tensor.
pub(super) fn check(
    head: &Head<'_>,
    raw: &[u8],
    at: Pointer<'_>,
    size_at: Pointer<'_>,
    errors: &mut InputErrors,
) {
    let Head { shape, datatype, elements, .. } = head;
    let Some(width) = datatype.width() else { return check_bytes(head, raw, at, errors) };
    if raw.len() != elements * width {
        let expected = elements * width;
        let detail = format!(
            "must be {expected}, since {} of the shape {shape:?} has so many bytes, not {}",
            datatype.as_str(),
            raw.len()
        );
        return errors.add(size_at, "length", detail);
    }
    let is_boolean = |byte: &u8| *byte < 2;
    if *datatype == DataType::Bool
        && let Some(index) = raw.iter().position(|byte| !is_boolean(byte))
    {
        let detail = format!("must have only bytes 0 and 1, but element {index} is {}", raw[index]);
        errors.add(at, "not_representable", detail);
    }
}

/// Checks that the bytes are so many elements with their lengths.
fn check_bytes(head: &Head<'_>, raw: &[u8], at: Pointer<'_>, errors: &mut InputErrors) {
    let (mut count, mut end) = (0, 0);
    for element in bytes::elements(raw) {
        count += 1;
        end += bytes::LENGTH + element.len();
    }
    if end < raw.len() {
        let detail = format!(
            "must have elements with their lengths, four bytes each, but element {count} at byte {end} of {} is incomplete",
            raw.len()
        );
        return errors.add(at, "length", detail);
    }
    if count != head.elements {
        let detail =
            format!("must have {} elements, as the shape {:?} says, not {count}", head.elements, head.shape);
        errors.add(at, "length", detail);
    }
}

/// Writes the list of tensors. Their raw bytes follow the JSON, in the same order.
///
/// # Errors
/// When `text` cannot take it.
pub fn write_list<'a>(tensors: impl IntoIterator<Item = View<'a>>, text: &mut impl Write) -> io::Result<()> {
    json::write_list(tensors, text, write_raw)
}

/// Writes the list of tensors. The raw bytes of those for which `is_raw` follow the JSON, in the same order.
///
/// # Errors
/// When `text` cannot take it.
pub fn write_mixed<'a>(
    tensors: impl IntoIterator<Item = View<'a>>,
    is_raw: impl Fn(&str) -> bool,
    text: &mut impl Write,
) -> io::Result<()> {
    json::write_list(tensors, text, |tensor, text| {
        if is_raw(tensor.name) { write_raw(tensor, text) } else { json::write_tensor(tensor, text) }
    })
}

fn write_raw(View { name, datatype, shape, data }: View<'_>, text: &mut impl Write) -> io::Result<()> {
    json::write_head(name, shape.iter(), datatype, text)?;
    write!(text, r#","{PARAMETERS}":{{"{BINARY_DATA_SIZE}":{}}}}}"#, data.len())
}

/// Writes the tensors as the outputs of a model: `{"outputs": [...]}`. Their raw bytes follow the JSON, in the same order.
///
/// # Errors
/// When `text` cannot take it.
pub fn write_outputs<'a>(
    tensors: impl IntoIterator<Item = View<'a>>,
    text: &mut impl Write,
) -> io::Result<()> {
    text.write_all(br#"{"outputs":"#)?;
    write_list(tensors, text)?;
    text.write_all(b"}")
}

#[cfg(test)]
mod tests;
