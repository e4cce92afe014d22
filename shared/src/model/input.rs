//! Converts a client's `data` to typed rows, or lists the wrong elements.

use serde_json::Value;

use super::{InputSpec, Model};
use crate::tensor::{
    Batch, InputError, MOST_ERRORS, Tensor,
    bounds::Bounds,
    from_json::{self, Allowed, Unfit},
    number::kind,
};

/// Memory is reserved for at most this many elements: a list of many empty rows must not take as much as one of full rows.
const MOST_AHEAD: usize = 1 << 16;

/// The rows of one job, one list of elements for each input of the model.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows {
    /// Number of rows.
    pub rows: usize,
    /// The elements of each input, in the order of the model's inputs, as [`Tensor::data`] contains them.
    pub inputs: Vec<Vec<u8>>,
}

impl Rows {
    /// Bytes of all elements.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.inputs.iter().map(Vec::len).sum()
    }
}

impl Model {
    /// Reads the value of `data`: a list of rows. A row is nested as the input's shape says. With several inputs, it is an object
    /// with such a value under the name of each.
    ///
    /// # Errors
    /// The wrong elements, at most [`MOST_ERRORS`].
    pub fn read_rows(&self, data: &Value) -> Result<Rows, Vec<InputError>> {
        let rows = self.row_list(data).map_err(|error| vec![error])?;
        let mut reader = Reader::new(self, rows.len());
        for (index, row) in rows.iter().enumerate() {
            if reader.errors.len() >= MOST_ERRORS {
                break;
            }
            reader.row(index, row);
        }
        if reader.errors.is_empty() {
            Ok(Rows { rows: rows.len(), inputs: reader.inputs })
        } else {
            reader.errors.truncate(MOST_ERRORS);
            Err(reader.errors)
        }
    }

    fn row_list<'a>(&self, data: &'a Value) -> Result<&'a [Value], InputError> {
        let error = |detail, code| InputError { pointer: "/data".to_owned(), detail, code };
        let most = self.max_rows;
        match data {
            Value::Array(rows) if rows.is_empty() => {
                Err(error(format!("must hold 1 to {most} rows, but is empty"), "empty"))
            }
            Value::Array(rows) if rows.len() > most => {
                Err(error(format!("must hold 1 to {most} rows, not {}", rows.len()), "too_many_rows"))
            }
            Value::Array(rows) => Ok(rows),
            other => Err(error(format!("must be a list of rows, not {}", kind(other)), "type")),
        }
    }

    /// Joins the rows of several jobs to one batch, in order.
    #[must_use]
    pub fn concatenate<'a>(&self, jobs: impl Iterator<Item = &'a Rows> + Clone) -> Batch {
        let rows = jobs.clone().map(|job| job.rows).sum();
        let inputs = self.inputs.iter().enumerate().map(|(number, input)| {
            let data = || jobs.clone().map(|job| job.inputs[number].as_slice());
            let mut joined = Vec::with_capacity(data().map(<[u8]>::len).sum());
            data().for_each(|data| joined.extend_from_slice(data));
            let shape = std::iter::once(rows).chain(input.shape.iter().copied()).collect();
            Tensor { name: input.name.clone(), datatype: input.datatype, shape, data: joined }
        });
        Batch { rows, inputs: inputs.collect() }
    }
}

struct Reader<'a> {
    model: &'a Model,
    inputs: Vec<Vec<u8>>,
    errors: Vec<InputError>,
}

impl<'a> Reader<'a> {
    fn new(model: &'a Model, rows: usize) -> Self {
        let expected = |input: &InputSpec| {
            let elements = rows.saturating_mul(input.elements()).min(MOST_AHEAD);
            elements * input.datatype.width().unwrap_or_default()
        };
        let inputs = model.inputs.iter().map(|input| Vec::with_capacity(expected(input))).collect();
        Self { model, inputs, errors: Vec::new() }
    }

    fn row(&mut self, index: usize, row: &Value) {
        let mut place = format!("/data/{index}");
        match self.model.inputs.as_slice() {
            [input] => self.nested(0, input, &input.shape, row, &mut place, &mut 0),
            inputs => self.named(inputs, row, &mut place),
        }
    }

    /// A row of a model with several inputs: an object with a value for each.
    fn named(&mut self, inputs: &[InputSpec], row: &Value, place: &mut String) {
        let Value::Object(values) = row else {
            let names = inputs.iter().map(|input| format!("{}: ...", Value::from(input.name.as_str())));
            let form = names.collect::<Vec<_>>().join(", ");
            return self.refuse(place, format!("must be an object {{{form}}}, not {}", kind(row)), "type");
        };
        for (number, input) in inputs.iter().enumerate() {
            at_place(place, &escaped(&input.name), |place| match values.get(&input.name) {
                Some(value) => self.nested(number, input, &input.shape, value, place, &mut 0),
                None => self.refuse(place, "is missing".to_owned(), "missing"),
            });
        }
        for name in values.keys().filter(|name| inputs.iter().all(|input| input.name != **name)) {
            let known = inputs.iter().map(|input| format!("`{}`", input.name)).collect::<Vec<_>>().join(", ");
            let detail = format!("is not an input of the model; its inputs are {known}");
            at_place(place, &escaped(name), |place| self.refuse(place, detail, "unknown_field"));
        }
    }

    fn nested(
        &mut self,
        number: usize,
        input: &InputSpec,
        shape: &[usize],
        value: &Value,
        place: &mut String,
        feature: &mut usize,
    ) {
        let Some((length, inner)) = shape.split_first() else {
            self.element(number, input, *feature, value, place);
            *feature += 1;
            return;
        };
        let Some(elements) = self.list(value, *length, place) else { return };
        for (index, element) in elements.iter().enumerate() {
            at_place(place, &index.to_string(), |place| {
                self.nested(number, input, inner, element, place, feature)
            });
        }
    }

    fn list<'v>(&mut self, value: &'v Value, length: usize, place: &str) -> Option<&'v [Value]> {
        match value {
            Value::Array(elements) if elements.len() == length => Some(elements),
            Value::Array(elements) => {
                let detail = format!("must hold exactly {length} values, not {}", elements.len());
                self.refuse(place, detail, "length");
                None
            }
            other => {
                self.refuse(place, format!("must be a list of {length} values, not {}", kind(other)), "type");
                None
            }
        }
    }

    fn element(&mut self, number: usize, input: &InputSpec, feature: usize, value: &Value, place: &str) {
        if let Err(Unfit { code, detail }) =
            from_json::append(&mut self.inputs[number], allowed(input), value)
        {
            // The name of the feature, if it has one.
            let name = input.features.get(feature).map_or_else(String::new, |name| format!("{name} "));
            self.refuse(place, format!("{name}{detail}"), code);
        }
    }

    fn refuse(&mut self, place: &str, detail: String, code: &'static str) {
        if self.errors.len() < MOST_ERRORS {
            self.errors.push(InputError { pointer: place.to_owned(), detail, code });
        }
    }
}

fn allowed(input: &InputSpec) -> Allowed {
    let InputSpec { datatype, greater_than, less_than, .. } = *input;
    Allowed { datatype, bounds: Bounds { greater_than, less_than } }
}

/// Runs `read` with a step appended to the pointer.
fn at_place(place: &mut String, step: &str, read: impl FnOnce(&mut String)) {
    let length = place.len();
    place.push('/');
    place.push_str(step);
    read(place);
    place.truncate(length);
}

/// A member's name as a step of a JSON Pointer (RFC 6901, section 3).
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests;
