//! Converts a client's `data` to tensors, or lists the wrong elements.

use serde_json::Value;

use super::{Axis, InputSpec, InputTensor, JobInput, Model, description::MOST_ELEMENTS, shape::elements_of};
use crate::{
    json::{JsonRef, ListRef},
    tensor::{
        InputError, InputErrors,
        from_json::{self, Unfit},
        pointer::Pointer,
    },
};

/// Memory is reserved for at most this many elements: a list of many empty rows must not take as much as one of full rows.
const MOST_AHEAD: usize = 1 << 16;
/// The member of a request that is read here.
const DATA: &str = "data";

impl Model {
    /// Reads the value of `data`: a list of rows if the model has a batch axis, otherwise one value like a row. A row is nested as
    /// the input's shape says. With several inputs, it is an object with such a value under the name of each.
    ///
    /// # Errors
    /// The wrong elements, at most [`MOST_ERRORS`](crate::tensor::MOST_ERRORS).
    pub fn read_data<'a>(&self, data: impl Into<JsonRef<'a>>) -> Result<JobInput, Vec<InputError>> {
        let (data, place) = (data.into(), Pointer::ROOT.member(DATA));
        if !self.has_batch_axis() {
            let mut reader = Reader::new(self, None);
            reader.row(data, place);
            return reader.finish(1);
        }
        let rows = self.row_list(data).map_err(|error| vec![error])?;
        let mut reader = Reader::new(self, Some(rows.len()));
        for (index, row) in rows.iter().enumerate() {
            if reader.errors.is_full() {
                break;
            }
            reader.row(row, place.element(index));
        }
        reader.finish(rows.len())
    }

    fn row_list<'a>(&self, data: JsonRef<'a>) -> Result<ListRef<'a>, InputError> {
        let error = |detail, code| InputError { pointer: "/data".to_owned(), detail, code };
        let most = self.max_batch;
        match data {
            JsonRef::List(rows) if rows.is_empty() => {
                Err(error(format!("must hold 1 to {most} rows, but is empty"), "empty"))
            }
            JsonRef::List(rows) if rows.len() > most => {
                Err(error(format!("must hold 1 to {most} rows, not {}", rows.len()), "too_many_rows"))
            }
            JsonRef::List(rows) => Ok(rows),
            other => Err(error(format!("must be a list of rows, not {}", other.kind()), "type")),
        }
    }
}

/// Reads rows into tensors.
struct Reader<'a> {
    model: &'a Model,
    /// A variable axis has the length 0 until the first list of the axis is read.
    tensors: Vec<InputTensor>,
    errors: InputErrors,
}

/// The input that a value belongs to, and its place in the rest of the shape.
#[derive(Clone, Copy)]
struct Target<'a> {
    number: usize,
    input: &'a InputSpec,
    /// The axes of the value.
    axes: &'a [Axis],
}

impl<'a> Reader<'a> {
    /// For this many rows, or a model without a batch axis.
    fn new(model: &'a Model, rows: Option<usize>) -> Self {
        let tensor = |input: &InputSpec| {
            let elements = rows.unwrap_or(1).saturating_mul(input.shape.fewest_elements()).min(MOST_AHEAD);
            InputTensor {
                shape: rows.into_iter().chain(input.shape.with_length(0)).collect(),
                data: Vec::with_capacity(elements * input.datatype.width().unwrap_or_default()),
            }
        };
        Self { model, tensors: model.inputs.iter().map(tensor).collect(), errors: InputErrors::default() }
    }

    fn finish(mut self, rows: usize) -> Result<JobInput, Vec<InputError>> {
        let is_too_large =
            |tensor: &InputTensor| elements_of(&tensor.shape).is_none_or(|all| all / rows > MOST_ELEMENTS);
        if self.errors.is_empty() && self.tensors.iter().any(is_too_large) {
            let detail = format!("has more than {MOST_ELEMENTS} values in a row");
            self.errors.add(Pointer::ROOT.member(DATA), "length", detail);
        }
        self.errors.or(JobInput { rows, tensors: self.tensors })
    }

    fn row(&mut self, row: JsonRef<'_>, place: Pointer<'_>) {
        match self.model.inputs.as_slice() {
            [input] => self.nested(Target::new(0, input), row, place, &mut 0),
            inputs => self.named(inputs, row, place),
        }
    }

    /// A row of a model with several inputs: an object with a value for each.
    fn named(&mut self, inputs: &[InputSpec], row: JsonRef<'_>, place: Pointer<'_>) {
        let JsonRef::Object(values) = row else {
            let names = inputs.iter().map(|input| format!("{}: ...", Value::from(input.name.as_str())));
            let form = names.collect::<Vec<_>>().join(", ");
            let detail = format!("must be an object {{{form}}}, not {}", row.kind());
            return self.errors.add(place, "type", detail);
        };
        for (number, input) in inputs.iter().enumerate() {
            let place = place.member(&input.name);
            match values.get(&input.name) {
                Some(value) => self.nested(Target::new(number, input), value, place, &mut 0),
                None => self.errors.add(place, "missing", "is missing"),
            }
        }
        for name in values.names().filter(|name| inputs.iter().all(|input| input.name != *name)) {
            let known = inputs.iter().map(|input| format!("`{}`", input.name)).collect::<Vec<_>>().join(", ");
            let detail = format!("is not an input of the model; its inputs are {known}");
            self.errors.add(place.member(name), "unknown_field", detail);
        }
    }

    fn nested(&mut self, target: Target<'_>, value: JsonRef<'_>, place: Pointer<'_>, feature: &mut usize) {
        let Some((axis, inner)) = target.axes.split_first() else {
            self.element(target, *feature, value, place);
            *feature += 1;
            return;
        };
        let Some(elements) = self.list(target, *axis, value, place) else { return };
        let target = Target { axes: inner, ..target };
        for (index, element) in elements.iter().enumerate() {
            if self.errors.is_full() {
                break;
            }
            self.nested(target, element, place.element(index), feature);
        }
    }

    /// The elements of a list along the first axis of the target.
    fn list<'v>(
        &mut self,
        target: Target<'_>,
        axis: Axis,
        value: JsonRef<'v>,
        place: Pointer<'_>,
    ) -> Option<ListRef<'v>> {
        let shape = &mut self.tensors[target.number].shape;
        let number = shape.len() - target.axes.len();
        let length = &mut shape[number];
        let (code, detail) = match (value, axis) {
            (JsonRef::List(elements), _) if elements.len() == *length && *length > 0 => {
                return Some(elements);
            }
            (JsonRef::List(elements), Axis::Variable) if elements.is_empty() => {
                ("empty", "must hold at least 1 value, but is empty".to_owned())
            }
            (JsonRef::List(elements), Axis::Variable) if *length == 0 => {
                *length = elements.len();
                return Some(elements);
            }
            (JsonRef::List(elements), Axis::Variable) => {
                let given = elements.len();
                ("length", format!("must hold {length} values like the first list of its axis, not {given}"))
            }
            (JsonRef::List(elements), Axis::Fixed(length)) => {
                ("length", format!("must hold exactly {length} values, not {}", elements.len()))
            }
            (other, Axis::Variable) => ("type", format!("must be a list of values, not {}", other.kind())),
            (other, Axis::Fixed(length)) => {
                ("type", format!("must be a list of {length} values, not {}", other.kind()))
            }
        };
        self.errors.add(place, code, detail);
        None
    }

    fn element(&mut self, target: Target<'_>, feature: usize, value: JsonRef<'_>, place: Pointer<'_>) {
        let Target { number, input, .. } = target;
        let data = &mut self.tensors[number].data;
        if let Err(Unfit { code, detail }) = from_json::append(data, input.allowed(), value) {
            // The name of the feature, if it has one.
            let name = input.features.get(feature).map_or_else(String::new, |name| format!("{name} "));
            self.errors.add(place, code, format!("{name}{detail}"));
        }
    }
}

impl<'a> Target<'a> {
    fn new(number: usize, input: &'a InputSpec) -> Self {
        Self { number, input, axes: input.shape.axes() }
    }
}

#[cfg(test)]
mod tests;
