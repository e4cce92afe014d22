//! JSON form: a list of objects with `name`, `shape`, `datatype` and `data`.

use std::io::{self, Write};

use super::{
    super::{
        DataType, Element, InputError, InputErrors, View, bytes,
        from_json::{self, Allowed, Unfit},
        pointer::Pointer,
        with_element,
    },
    Form, Given,
    head::{self, DATATYPE, Head, NAME, SHAPE},
};
use crate::json::{JsonRef, ListRef};

pub(super) const DATA: &str = "data";

/// Reads a list of tensors at this place of the request. `data` is a flat list, or nested as the shape says.
///
/// # Errors
/// The wrong elements, at most [`MOST_ERRORS`](crate::tensor::MOST_ERRORS).
pub fn read<'a>(list: impl Into<JsonRef<'a>>, at: Pointer<'_>) -> Result<Vec<Given>, Vec<InputError>> {
    let mut errors = InputErrors::default();
    let tensors = head::read_list(list.into(), at, &mut errors, read_tensor);
    errors.or(tensors)
}

fn read_tensor(entry: JsonRef<'_>, at: Pointer<'_>, errors: &mut InputErrors) -> Option<Given> {
    let members = head::members(entry, &[NAME, SHAPE, DATATYPE, DATA], at, errors)?;
    let head = Head::read(members, at, errors);
    let Some(data) = members.get(DATA) else {
        errors.add(at.member(DATA), "missing", "is missing");
        return None;
    };
    Some(read_data(head?, data, at.member(DATA), errors))
}

/// The tensor with the elements that the value contains. They are incomplete if there are errors.
pub(super) fn read_data(
    head: Head<'_>,
    value: JsonRef<'_>,
    at: Pointer<'_>,
    errors: &mut InputErrors,
) -> Given {
    let mut reader = Reader { datatype: head.datatype, data: Vec::new(), errors };
    let mut form = Form::Nested;
    match (value, head.shape.as_slice()) {
        (JsonRef::List(values), shape) if is_nested(values, shape) => reader.nested(values, shape, at),
        (JsonRef::List(values), _) => {
            form = Form::Flat;
            reader.flat(values, &head, at);
        }
        (value, []) => reader.element(value, at),
        (other, _) => reader.errors.add(at, "type", format!("must be a list, not {}", other.kind())),
    }
    Given { tensor: head.with(reader.data), form }
}

fn is_nested(values: ListRef<'_>, shape: &[usize]) -> bool {
    shape.len() > 1 && values.get(0).is_some_and(|first| first.as_list().is_some())
}

struct Reader<'a> {
    datatype: DataType,
    data: Vec<u8>,
    errors: &'a mut InputErrors,
}

impl Reader<'_> {
    fn flat(&mut self, values: ListRef<'_>, head: &Head<'_>, at: Pointer<'_>) {
        if values.len() != head.elements {
            let (shape, elements) = (&head.shape, head.elements);
            let detail =
                format!("must have {elements} values, as the shape {shape:?} says, not {}", values.len());
            return self.errors.add(at, "length", detail);
        }
        self.data.reserve_exact(values.len() * self.datatype.width().unwrap_or_default());
        self.elements(values, at);
    }

    fn nested(&mut self, values: ListRef<'_>, shape: &[usize], at: Pointer<'_>) {
        let Some((length, inner)) = shape.split_first() else { return };
        if values.len() != *length {
            let detail = format!("must have {length} values, as the shape says, not {}", values.len());
            return self.errors.add(at, "length", detail);
        }
        if inner.is_empty() {
            return self.elements(values, at);
        }
        for (index, value) in values.iter().enumerate() {
            if self.errors.is_full() {
                return;
            }
            match value {
                JsonRef::List(values) => self.nested(values, inner, at.element(index)),
                other => {
                    let detail = format!("must be a list of {} values, not {}", inner[0], other.kind());
                    self.errors.add(at.element(index), "type", detail);
                }
            }
        }
    }

    fn elements(&mut self, values: ListRef<'_>, at: Pointer<'_>) {
        for (index, value) in values.iter().enumerate() {
            if self.errors.is_full() {
                return;
            }
            self.element(value, at.element(index));
        }
    }

    fn element(&mut self, value: JsonRef<'_>, at: Pointer<'_>) {
        let appended = from_json::append(&mut self.data, Allowed::any(self.datatype), value);
        if let Err(Unfit { code, detail }) = appended {
            self.errors.add(at, code, detail);
        }
    }
}

/// Writes the tensors as a list. `data` is flat.
///
/// # Errors
/// When `text` cannot take it.
pub fn write<'a>(tensors: impl IntoIterator<Item = View<'a>>, text: &mut impl Write) -> io::Result<()> {
    write_list(tensors, text, write_tensor)
}

/// Writes one tensor.
pub(super) fn write_tensor(
    View { name, datatype, shape, data }: View<'_>,
    text: &mut impl Write,
) -> io::Result<()> {
    write_head(name, shape.iter(), datatype, text)?;
    text.write_all(br#","data":"#)?;
    write_elements(datatype, data, text)?;
    text.write_all(b"}")
}

/// Writes the tensors as the outputs of a model: `{"outputs": [...]}`.
///
/// # Errors
/// When `text` cannot take it.
pub fn write_outputs<'a>(
    tensors: impl IntoIterator<Item = View<'a>>,
    text: &mut impl Write,
) -> io::Result<()> {
    text.write_all(br#"{"outputs":"#)?;
    write(tensors, text)?;
    text.write_all(b"}")
}

/// Bytes that [`write_outputs`] writes.
#[must_use]
pub fn length_of_outputs<'a>(tensors: impl IntoIterator<Item = View<'a>>) -> usize {
    let mut counter = Counter(0);
    // Counting cannot fail.
    let _ = write_outputs(tensors, &mut counter);
    counter.0
}

/// Counts what is written.
struct Counter(usize);

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes name, shape and datatype, after the opening bracket of the object.
pub(crate) fn write_head<'a>(
    name: &str,
    shape: impl Iterator<Item = &'a usize>,
    datatype: DataType,
    text: &mut impl Write,
) -> io::Result<()> {
    text.write_all(br#"{"name":"#)?;
    serde_json::to_writer(&mut *text, name)?;
    text.write_all(br#","shape":"#)?;
    write_list(shape, text, |length, text| Ok(serde_json::to_writer(text, length)?))?;
    write!(text, r#","datatype":"{}""#, datatype.as_str())
}

/// Writes elements as a flat list.
pub(crate) fn write_elements(datatype: DataType, data: &[u8], text: &mut impl Write) -> io::Result<()> {
    with_element!(
        datatype,
        T => write_list(T::all(data), text, Element::write_json),
        BYTES => write_list(bytes::elements(data), text, bytes::write_json)
    )
}

/// Writes items between brackets, with commas between them.
pub(crate) fn write_list<T, W: Write>(
    items: impl IntoIterator<Item = T>,
    text: &mut W,
    mut write: impl FnMut(T, &mut W) -> io::Result<()>,
) -> io::Result<()> {
    text.write_all(b"[")?;
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            text.write_all(b",")?;
        }
        write(item, text)?;
    }
    text.write_all(b"]")
}

#[cfg(test)]
mod tests;
