//! Converts a client's `data` to typed rows, or lists the wrong elements.

use std::fmt;

use serde_json::Value;

use super::{InputSpec, Model};
use crate::tensor::{
    Batch, DType, Tensor, Values,
    number::{kind, large},
};

/// Largest number of wrong elements that are reported.
pub const MOST_ERRORS: usize = 20;

/// Memory is reserved for at most this many elements: a list of many empty rows must not take as much as one of full rows.
const MOST_AHEAD: usize = 1 << 16;

/// One wrong element of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputError {
    /// Its place, a JSON Pointer (RFC 6901).
    pub pointer: String,
    /// What is wrong and what is allowed, a sentence.
    pub detail: String,
    /// One word for programs.
    pub code: &'static str,
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.pointer, self.detail)
    }
}

/// The rows of one job, one list of elements for each input of the model.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows {
    /// Number of rows.
    pub rows: usize,
    /// Elements in row-major order, in the order of the model's inputs.
    pub inputs: Vec<Values>,
}

impl Rows {
    /// Bytes of all elements.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.inputs.iter().map(Values::bytes).sum()
    }
}

impl Model {
    /// Reads the value of `data`: a list of rows, each nested as the input's shape says.
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
            Ok(Rows { rows: rows.len(), inputs: reader.values })
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
            let mut values = Values::with_capacity(input.dtype, rows * input.elements());
            for job in jobs.clone() {
                append(&mut values, &job.inputs[number]);
            }
            let shape = std::iter::once(rows).chain(input.shape.iter().copied()).collect();
            Tensor { name: input.name.clone(), shape, values }
        });
        Batch { rows, inputs: inputs.collect() }
    }
}

/// Both sides were read with the same model, so their types are equal.
fn append(values: &mut Values, more: &Values) {
    match (values, more) {
        (Values::Float(values), Values::Float(more)) => values.extend_from_slice(more),
        (Values::Double(values), Values::Double(more)) => values.extend_from_slice(more),
        (Values::Int32(values), Values::Int32(more)) => values.extend_from_slice(more),
        (Values::Int64(values), Values::Int64(more)) => values.extend_from_slice(more),
        _ => {}
    }
}

struct Reader<'a> {
    model: &'a Model,
    values: Vec<Values>,
    errors: Vec<InputError>,
}

impl<'a> Reader<'a> {
    fn new(model: &'a Model, rows: usize) -> Self {
        let expected = |input: &InputSpec| rows.saturating_mul(input.elements()).min(MOST_AHEAD);
        let values =
            model.inputs.iter().map(|input| Values::with_capacity(input.dtype, expected(input))).collect();
        Self { model, values, errors: Vec::new() }
    }

    fn row(&mut self, index: usize, row: &Value) {
        let mut place = format!("/data/{index}");
        if let [input] = self.model.inputs.as_slice() {
            let mut feature = 0;
            self.nested(0, input, &input.shape, row, &mut place, &mut feature);
        } else {
            self.flat(row, &mut place);
        }
    }

    /// A row of a model with several inputs: one flat list.
    fn flat(&mut self, row: &Value, place: &mut String) {
        let expected: usize = self.model.inputs.iter().map(InputSpec::elements).sum();
        let Some(elements) = self.list(row, expected, place) else { return };
        let model = self.model;
        let inputs = model.inputs.iter().enumerate();
        let owners =
            inputs.flat_map(|(number, input)| (0..input.elements()).map(move |at| (number, input, at)));
        for ((index, element), (number, input, at)) in elements.iter().enumerate().zip(owners) {
            at_place(place, index, |place| self.number(number, input, at, element, place));
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
            self.number(number, input, *feature, value, place);
            *feature += 1;
            return;
        };
        let Some(elements) = self.list(value, *length, place) else { return };
        for (index, element) in elements.iter().enumerate() {
            at_place(place, index, |place| self.nested(number, input, inner, element, place, feature));
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

    fn number(&mut self, number: usize, input: &InputSpec, feature: usize, value: &Value, place: &str) {
        let Value::Number(given) = value else {
            return match large(value) {
                Some(given) => self.refuse_unrepresentable(input, feature, given, place),
                None => {
                    let name = name_of(input, feature);
                    self.refuse(place, format!("{name}must be a number, not {}", kind(value)), "type");
                }
            };
        };
        let Some(as_float) = push(&mut self.values[number], given) else {
            return self.refuse_unrepresentable(input, feature, given, place);
        };
        let too_small = input.greater_than.is_some_and(|bound| as_float <= bound);
        let too_large = input.less_than.is_some_and(|bound| as_float >= bound);
        if too_small || too_large {
            let name = name_of(input, feature);
            self.refuse(place, format!("{name}must be {}, but is {given}", bounds(input)), "out_of_range");
        }
    }

    fn refuse_unrepresentable(
        &mut self,
        input: &InputSpec,
        feature: usize,
        given: impl fmt::Display,
        place: &str,
    ) {
        let (name, dtype) = (name_of(input, feature), type_name(input.dtype));
        self.refuse(
            place,
            format!("{name}must be a finite {dtype}, and {given} is none"),
            "not_representable",
        );
    }

    fn refuse(&mut self, place: &str, detail: String, code: &'static str) {
        if self.errors.len() < MOST_ERRORS {
            self.errors.push(InputError { pointer: place.to_owned(), detail, code });
        }
    }
}

/// Begin of an error message: the name of the feature and a blank, or nothing if it has no name.
fn name_of(input: &InputSpec, feature: usize) -> String {
    input.features.get(feature).map_or_else(String::new, |name| format!("{name} "))
}

/// Runs `read` with `index` appended to the pointer.
fn at_place(place: &mut String, index: usize, read: impl FnOnce(&mut String)) {
    let length = place.len();
    place.push('/');
    place.push_str(&index.to_string());
    read(place);
    place.truncate(length);
}

/// Converts the number to the type of `values` and appends it. Returns the converted number; `None` if it does not fit.
/// A 32-bit float is checked after the cast: 1e39 is a finite JSON number, but infinite as DT_FLOAT.
fn push(values: &mut Values, given: &serde_json::Number) -> Option<f64> {
    match values {
        Values::Float(values) => {
            let value = given.as_f64()? as f32;
            values.push(value);
            value.is_finite().then_some(f64::from(value))
        }
        Values::Double(values) => {
            let value = given.as_f64()?;
            values.push(value);
            value.is_finite().then_some(value)
        }
        Values::Int32(values) => {
            let value = i32::try_from(given.as_i64()?).ok()?;
            values.push(value);
            Some(f64::from(value))
        }
        Values::Int64(values) => {
            let value = given.as_i64()?;
            values.push(value);
            Some(value as f64)
        }
    }
}

fn bounds(input: &InputSpec) -> String {
    match (input.greater_than, input.less_than) {
        (Some(low), Some(high)) => format!("greater than {low} and less than {high}"),
        (Some(low), None) => format!("greater than {low}"),
        (None, Some(high)) => format!("less than {high}"),
        (None, None) => "a number".to_owned(),
    }
}

fn type_name(dtype: DType) -> &'static str {
    match dtype {
        DType::Float => "32-bit float",
        DType::Double => "64-bit float",
        DType::Int32 => "32-bit integer",
        DType::Int64 => "64-bit integer",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::description::tests::flowers, *};

    fn errors(data: Value) -> Vec<(String, String)> {
        let errors = flowers().read_rows(&data).unwrap_err();
        errors.into_iter().map(|error| (error.pointer, error.detail)).collect()
    }

    fn error(data: Value) -> (String, String) {
        errors(data).remove(0)
    }

    fn at(pointer: &str, detail: &str) -> (String, String) {
        (pointer.to_owned(), detail.to_owned())
    }

    #[test]
    fn rows_are_read_in_order() {
        let rows = flowers().read_rows(&json!([[1, 2.5], [3, 4]])).unwrap();
        assert_eq!(rows, Rows { rows: 2, inputs: vec![Values::Float(vec![1.0, 2.5, 3.0, 4.0])] });
    }

    #[test]
    fn each_kind_of_wrong_input_is_reported_with_its_place() {
        assert_eq!(error(json!("x")), at("/data", "must be a list of rows, not a string"));
        assert_eq!(error(json!([])), at("/data", "must hold 1 to 4 rows, but is empty"));
        assert_eq!(
            error(json!([[1, 1], [1, 1], [1, 1], [1, 1], [1, 1]])),
            at("/data", "must hold 1 to 4 rows, not 5")
        );
        assert_eq!(error(json!([[1, 2, 3]])), at("/data/0", "must hold exactly 2 values, not 3"));
        assert_eq!(error(json!([[1, 2], 5])), at("/data/1", "must be a list of 2 values, not a number"));
        assert_eq!(error(json!([[1, null]])), at("/data/0/1", "height must be a number, not null"));
        assert_eq!(
            error(json!([[1, 10.0]])),
            at("/data/0/1", "height must be greater than 0 and less than 10, but is 10.0")
        );
        assert_eq!(error(json!([[1e39, 1]])).0, "/data/0/0");
    }

    #[test]
    fn bounds_are_checked_after_the_cast() {
        assert_eq!(error(json!([[1, 9.999_999_999_9]])).0, "/data/0/1");
    }

    #[test]
    fn all_wrong_elements_are_reported_at_once_up_to_a_limit() {
        assert_eq!(errors(json!([[0, -1], [1, "a"]])).len(), 3);
        let mut model = flowers();
        model.max_rows = 100;
        let errors = model.read_rows(&json!(vec![json!([0, 0]); 100])).unwrap_err();
        assert_eq!(errors.len(), MOST_ERRORS);
    }

    #[test]
    fn a_flat_row_is_cut_into_several_inputs() {
        let mut model = flowers();
        let mut second = model.inputs[0].clone();
        (second.name, second.shape, second.dtype) = ("y".to_owned(), vec![1], DType::Int64);
        (second.features, second.greater_than, second.less_than) = (Vec::new(), None, None);
        model.inputs.push(second);
        let rows = model.read_rows(&json!([[1, 2, 70_000_000_000_i64], [3, 4, 6]])).unwrap();
        let expected = vec![Values::Float(vec![1.0, 2.0, 3.0, 4.0]), Values::Int64(vec![70_000_000_000, 6])];
        assert_eq!(rows.inputs, expected);
        assert_eq!(model.read_rows(&json!([[1, 2, 0.5]])).unwrap_err()[0].pointer, "/data/0/2");
    }

    #[test]
    fn nested_rows_follow_the_shape() {
        let mut model = flowers();
        model.inputs[0].shape = vec![1, 2];
        let rows = model.read_rows(&json!([[[1, 2]]])).unwrap();
        assert_eq!(rows.inputs, vec![Values::Float(vec![1.0, 2.0])]);
        assert_eq!(model.read_rows(&json!([[[1, 0]]])).unwrap_err()[0].pointer, "/data/0/0/1");
    }

    #[test]
    fn jobs_are_concatenated_along_the_batch_axis() {
        let model = flowers();
        let jobs = [json!([[1, 2]]), json!([[3, 4], [5, 6]])].map(|data| model.read_rows(&data).unwrap());
        let batch = model.concatenate(jobs.iter());
        assert_eq!(batch.rows, 3);
        assert_eq!(batch.inputs[0].shape, [3, 2]);
        assert_eq!(batch.inputs[0].values, Values::Float(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
    }
}
