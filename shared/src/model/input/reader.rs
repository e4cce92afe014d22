//! Reads nested lists into the tensors of a job, as the description of the model says.

use serde_json::Value;

use super::super::{Axis, InputSpec, InputTensor, JobInput, Model, description::MOST_ELEMENTS, elements_of};
use crate::{
    json::{JsonRef, ListRef},
    tensor::{
        InputError, InputErrors,
        from_json::{self, Allowed, Unfit},
        pointer::Pointer,
    },
};

/// Memory is reserved for at most this many elements: a list of many empty rows must not take as much as one of full rows.
const MOST_AHEAD: usize = 1 << 16;

/// Reads rows into tensors.
pub(super) struct Reader<'a> {
    pub(super) model: &'a Model,
    /// A variable axis has the length 0 until the first list of the axis is read.
    pub(super) tensors: Vec<InputTensor>,
    pub(super) errors: InputErrors,
    /// Whether the rows are along the first axis of a model without a batch axis.
    is_stacked: bool,
    /// Whether a whole float is an integer.
    pub(super) whole_floats: bool,
}

/// The input that a value belongs to, and its place in the rest of the shape.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    number: usize,
    input: &'a InputSpec,
    /// The axes of the value.
    axes: &'a [Axis],
}

impl<'a> Reader<'a> {
    /// For this many rows, or a model without a batch axis.
    pub(super) fn new(model: &'a Model, rows: Option<usize>) -> Self {
        let tensor = |input: &InputSpec| {
            let elements = rows.unwrap_or(1).saturating_mul(input.shape.fewest_elements()).min(MOST_AHEAD);
            InputTensor {
                shape: rows.into_iter().chain(input.shape.with_length(0)).collect(),
                data: Vec::with_capacity(elements * input.datatype.width().unwrap_or_default()),
            }
        };
        let tensors = model.inputs.iter().map(tensor).collect();
        Self { model, tensors, errors: InputErrors::default(), is_stacked: false, whole_floats: true }
    }

    /// The input of a job of this many rows, which were read at this place.
    pub(super) fn finish(mut self, rows: usize, at: Pointer<'_>) -> Result<JobInput, Vec<InputError>> {
        let is_too_large = |tensor: &InputTensor| {
            elements_of(&tensor.shape).is_none_or(|all| all / rows.max(1) > MOST_ELEMENTS)
        };
        if self.errors.is_empty() && self.tensors.iter().any(is_too_large) {
            self.errors.add(at, "length", format!("has more than {MOST_ELEMENTS} values in a row"));
        }
        self.errors.or(JobInput { rows, tensors: self.tensors })
    }

    /// Takes the rows, which this list at this place contains, as the first axis of a model without a batch axis.
    pub(super) fn stack(&mut self, rows: JsonRef<'_>, at: Pointer<'_>) {
        for (number, input) in self.model.inputs.iter().enumerate() {
            let target = self.target(number, input);
            match target.axes.first() {
                Some(axis) => drop(self.list(target, *axis, rows, at)),
                None => {
                    let detail =
                        format!("must be columns, since the input `{}` is a single value", input.name);
                    self.errors.add(at, "length", detail);
                }
            }
        }
        self.is_stacked = true;
    }

    /// The target of a row of this input.
    pub(super) fn target(&self, number: usize, input: &'a InputSpec) -> Target<'a> {
        let axes = input.shape.axes();
        Target { number, input, axes: axes.get(usize::from(self.is_stacked)..).unwrap_or_default() }
    }

    /// Reads a row: the value of the only input, or an object with the values of several.
    pub(super) fn row(&mut self, row: JsonRef<'_>, place: Pointer<'_>) {
        match self.model.inputs.as_slice() {
            [input] => self.nested(self.target(0, input), row, place, &mut 0),
            _ => self.named(row, place),
        }
    }

    /// Reads a row that is an object with a value for each input.
    pub(super) fn named(&mut self, row: JsonRef<'_>, place: Pointer<'_>) {
        let inputs = &self.model.inputs;
        let JsonRef::Object(values) = row else { return self.not_named(row, place) };
        for (number, input) in inputs.iter().enumerate() {
            let place = place.member(&input.name);
            match values.get(&input.name) {
                Some(value) => self.nested(self.target(number, input), value, place, &mut 0),
                None => self.errors.add(place, "missing", "is missing"),
            }
        }
        for name in values.names().filter(|name| inputs.iter().all(|input| input.name != *name)) {
            let known = inputs.iter().map(|input| format!("`{}`", input.name)).collect::<Vec<_>>().join(", ");
            let detail = format!("is not an input of the model; its inputs are {known}");
            self.errors.add(place.member(name), "unknown_field", detail);
        }
    }

    /// Reports a value that is no object with a value for each input.
    pub(super) fn not_named(&mut self, value: JsonRef<'_>, place: Pointer<'_>) {
        let names =
            self.model.inputs.iter().map(|input| format!("{}: ...", Value::from(input.name.as_str())));
        let form = names.collect::<Vec<_>>().join(", ");
        self.errors.add(place, "type", format!("must be an object {{{form}}}, not {}", value.kind()));
    }

    /// Reads a value that is nested as the axes of the target say.
    pub(super) fn nested(
        &mut self,
        target: Target<'_>,
        value: JsonRef<'_>,
        place: Pointer<'_>,
        feature: &mut usize,
    ) {
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

    /// Reads one element.
    pub(super) fn element(
        &mut self,
        target: Target<'_>,
        feature: usize,
        value: JsonRef<'_>,
        place: Pointer<'_>,
    ) {
        let Target { number, input, .. } = target;
        let data = &mut self.tensors[number].data;
        let allowed = Allowed { whole_floats: self.whole_floats, ..input.allowed() };
        if let Err(Unfit { code, detail }) = from_json::append(data, allowed, value) {
            // The name of the feature, if it has one. Of stacked rows, the place says enough.
            let name = input.features.get(feature).filter(|_| !self.is_stacked);
            let name = name.map_or_else(String::new, |name| format!("{name} "));
            self.errors.add(place, code, format!("{name}{detail}"));
        }
    }
}
