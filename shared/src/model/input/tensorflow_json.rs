//! Reads the forms of TensorFlow Serving's REST API: rows (`instances`), columns (`inputs`) and examples. An integer is no boolean there,
//! and a float is no integer.

use super::{
    super::{JobInput, Model},
    reader::Reader,
};
use crate::{
    json::{JsonRef, ListRef, ObjectRef},
    tensor::{InputError, bytes, pointer::Pointer},
};

impl Model {
    /// Reads the list of rows at this place. A row of the only input is its value, or an object with the value under its name; a row of
    /// several inputs is such an object. The rows are the first axis of the inputs, also of a model without a batch axis.
    ///
    /// # Errors
    /// The wrong elements, at most [`MOST_ERRORS`](crate::tensor::MOST_ERRORS).
    pub fn read_instances<'a>(
        &self,
        instances: impl Into<JsonRef<'a>>,
        at: Pointer<'_>,
    ) -> Result<JobInput, Vec<InputError>> {
        self.check_has_tensors(at)?;
        let (rows, mut reader) = self.start(instances.into(), at)?;
        // As the first one.
        let are_named = rows.get(0).is_some_and(|first| named(first).is_some());
        each(rows, at, &mut reader, |reader, row, place| match (are_named, named(row)) {
            (true, None) => reader.not_named(row, place),
            (true, Some(_)) => reader.named(row, place),
            (false, _) => reader.row(row, place),
        });
        self.finish(reader, rows, at)
    }

    /// Reads the columns at this place: the whole tensor of the only input, or an object with the whole tensors under the names of the
    /// inputs. Other names are ignored.
    ///
    /// # Errors
    /// As [`Model::read_instances`].
    pub fn read_columns<'a>(
        &self,
        columns: impl Into<JsonRef<'a>>,
        at: Pointer<'_>,
    ) -> Result<JobInput, Vec<InputError>> {
        self.check_has_tensors(at)?;
        let columns = columns.into();
        let mut reader = strict(Reader::new(self, self.has_batch_axis().then_some(0)));
        let mut rows = None;
        match (named(columns), self.inputs.len()) {
            (None, 1) => column(&mut reader, 0, columns, at, &mut rows),
            (None, _) => reader.not_named(columns, at),
            (Some(columns), _) => {
                for (number, input) in self.inputs.iter().enumerate() {
                    let place = at.member(&input.name);
                    match columns.get(&input.name) {
                        Some(value) => column(&mut reader, number, value, place, &mut rows),
                        None => reader.errors.add(place, "missing", "is missing"),
                    }
                }
            }
        }
        reader.finish(rows.unwrap_or(1), at)
    }

    /// Reads the list of examples at this place. An example is an object with the value of each input, or, if the only input has names
    /// for its features, with the value of each feature. What it lacks, it has from the context. Other names are ignored.
    ///
    /// # Errors
    /// As [`Model::read_instances`].
    pub fn read_examples<'a>(
        &self,
        examples: impl Into<JsonRef<'a>>,
        at: Pointer<'_>,
        context: Option<Placed<'_>>,
    ) -> Result<JobInput, Vec<InputError>> {
        self.check_has_tensors(at)?;
        let (rows, mut reader) = self.start(examples.into(), at)?;
        each(rows, at, &mut reader, |reader, row, place| match named(row) {
            Some(members) => Example { members: (members, place), context }.read(reader),
            None => reader.not_named(row, place),
        });
        self.finish(reader, rows, at)
    }

    /// A reader for a list of rows, and the list.
    fn start<'a>(
        &self,
        list: JsonRef<'a>,
        at: Pointer<'_>,
    ) -> Result<(ListRef<'a>, Reader<'_>), Vec<InputError>> {
        if self.has_batch_axis() {
            let rows = self.row_list(list, at).map_err(|error| vec![error])?;
            return Ok((rows, strict(Reader::new(self, Some(rows.len())))));
        }
        let mut reader = strict(Reader::new(self, None));
        reader.stack(list, at);
        match list {
            JsonRef::List(rows) if reader.errors.is_empty() => Ok((rows, reader)),
            _ => Err(reader.finish(1, at).err().unwrap_or_default()),
        }
    }

    fn finish(
        &self,
        reader: Reader<'_>,
        rows: ListRef<'_>,
        at: Pointer<'_>,
    ) -> Result<JobInput, Vec<InputError>> {
        reader.finish(if self.has_batch_axis() { rows.len() } else { 1 }, at)
    }
}

/// The number of no feature: the place of an element has its name already.
const NOT_NAMED: usize = usize::MAX;

/// Members of a request, and their place.
pub type Placed<'a> = (ObjectRef<'a>, Pointer<'a>);

/// The reader, for which a float is no integer.
fn strict(mut reader: Reader<'_>) -> Reader<'_> {
    reader.whole_floats = false;
    reader
}

/// The members, unless the object stands for one value.
fn named(value: JsonRef<'_>) -> Option<ObjectRef<'_>> {
    let JsonRef::Object(members) = value else { return None };
    let is_base64 = members.len() == 1 && members.get(bytes::BASE64).and_then(JsonRef::as_str).is_some();
    (!is_base64 && value.large().is_none()).then_some(members)
}

/// Reads each row, until no more mistakes are reported.
fn each<'m>(
    rows: ListRef<'_>,
    at: Pointer<'_>,
    reader: &mut Reader<'m>,
    read: impl Fn(&mut Reader<'m>, JsonRef<'_>, Pointer<'_>),
) {
    for (index, row) in rows.iter().enumerate() {
        if reader.errors.is_full() {
            break;
        }
        read(reader, row, at.element(index));
    }
}

/// Reads a whole tensor. All have as many rows as the first.
fn column(
    reader: &mut Reader<'_>,
    number: usize,
    value: JsonRef<'_>,
    at: Pointer<'_>,
    rows: &mut Option<usize>,
) {
    let model = reader.model;
    let Some(input) = model.inputs.get(number) else { return };
    let target = reader.target(number, input);
    if !model.has_batch_axis() {
        return reader.nested(target, value, at, &mut 0);
    }
    let list = match model.row_list(value, at) {
        Ok(list) => list,
        Err(error) => return reader.errors.extend([error]),
    };
    let first = *rows.get_or_insert(list.len());
    if list.len() != first {
        let detail = format!("must hold as many rows as the first input, {first}, not {}", list.len());
        return reader.errors.add(at, "length", detail);
    }
    if let Some(length) = reader.tensors.get_mut(number).and_then(|tensor| tensor.shape.first_mut()) {
        *length = first;
    }
    each(list, at, reader, |reader, row, place| reader.nested(target, row, place, &mut 0));
}

/// One example of a classification.
struct Example<'a> {
    members: Placed<'a>,
    context: Option<Placed<'a>>,
}

impl Example<'_> {
    fn read(&self, reader: &mut Reader<'_>) {
        let inputs = &reader.model.inputs;
        if let [input] = inputs.as_slice()
            && !input.features.is_empty()
            && self.find(&input.name).is_none()
        {
            let target = reader.target(0, input);
            for name in &input.features {
                self.value(name, reader, |reader, value, place| {
                    reader.element(target, NOT_NAMED, single(value).unwrap_or(value), place);
                });
            }
            return;
        }
        for (number, input) in inputs.iter().enumerate() {
            let target = reader.target(number, input);
            let is_single = input.shape.elements() == Some(1);
            self.value(&input.name, reader, |reader, value, place| match value {
                JsonRef::List(_) => reader.nested(target, value, place, &mut 0),
                _ if is_single => reader.element(target, 0, value, place),
                _ => reader.nested(target, value, place, &mut 0),
            });
        }
    }

    fn find(&self, name: &str) -> Option<(JsonRef<'_>, Pointer<'_>)> {
        let own = [Some(&self.members), self.context.as_ref()].into_iter().flatten();
        own.into_iter().find_map(|(members, place)| Some((members.get(name)?, *place)))
    }

    /// Reads the value with this name, which must exist.
    fn value<'m>(
        &self,
        name: &str,
        reader: &mut Reader<'m>,
        read: impl FnOnce(&mut Reader<'m>, JsonRef<'_>, Pointer<'_>),
    ) {
        match self.find(name) {
            Some((value, place)) => read(reader, value, place.member(name)),
            None => reader.errors.add(self.members.1.member(name), "missing", "is missing"),
        }
    }
}

/// The only element of a list.
fn single(value: JsonRef<'_>) -> Option<JsonRef<'_>> {
    value.as_list().filter(|list| list.len() == 1).and_then(|list| list.get(0))
}

#[cfg(test)]
mod tests;
