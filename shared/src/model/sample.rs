//! A valid input for each model. If the description has no sample, one is derived: zeros, false and empty strings, or other values
//! where the bounds exclude zero.

use std::sync::Arc;

use serde_json::{Map, Number, Value};

use super::{InputSpec, InputTensor, JobInput, Model, description::MOST_ELEMENTS, schema::next_above};
use crate::tensor::{DataType, from_json};

/// Length of each variable axis of a derived sample. Image models often halve their axes five times.
const LENGTH: usize = 32;
/// Most elements of a sample that is shown to people.
const MOST_SHOWN: usize = 1000;

impl Model {
    /// The sample of the description, or a derived one of one row. `None` if an opaque model has no sample: nothing says what it takes.
    #[must_use]
    pub fn sample_input(&self) -> Option<JobInput> {
        match (&self.large_sample, &self.sample) {
            (Some(large), _) => Some(JobInput::clone(large)),
            // That of a checked description is valid.
            (None, Some(sample)) => self.read_data(sample).ok().or_else(|| self.derived_input()),
            (None, None) => self.derived_input(),
        }
    }

    /// Whether the description has a sample. A derived one may be wrong: an empty string is no image.
    #[must_use]
    pub fn has_written_sample(&self) -> bool {
        self.sample.is_some() || self.large_sample.is_some()
    }

    /// The sample as a value of `data`; `None` if it is too large to show.
    #[must_use]
    pub fn shown_sample(&self) -> Option<Value> {
        if self.large_sample.is_some() {
            return None;
        }
        if self.sample.is_some() || self.is_opaque {
            return self.sample.clone();
        }
        let elements =
            self.inputs.iter().map(|input| lengths(input).iter().product::<usize>()).sum::<usize>();
        (elements <= MOST_SHOWN).then(|| self.derived_data())
    }

    pub(super) fn check_sample(&self) -> Result<(), String> {
        let Some(sample) = &self.sample else {
            return self.inputs.iter().try_for_each(|input| fitting_value(input).map(|_| ()));
        };
        self.read_data(sample).map(|_| ()).map_err(|errors| {
            let first = errors.first().map(ToString::to_string).unwrap_or_default();
            format!("its sample is not valid input: {first}")
        })
    }

    /// Keeps a sample that is too large to show as tensors.
    pub(super) fn convert_large_sample(&mut self) {
        let Some(sample) = self.sample.take_if(|sample| elements_in(sample) > MOST_SHOWN) else { return };
        self.large_sample = self.read_data(&sample).ok().map(Arc::new);
    }

    fn derived_data(&self) -> Value {
        let value = |input: &InputSpec| nested(&lengths(input), &fitting_value(input).unwrap_or_default());
        let row = match self.inputs.as_slice() {
            [input] => value(input),
            inputs => {
                let values = inputs.iter().map(|input| (input.name.clone(), value(input)));
                Value::Object(values.collect::<Map<_, _>>())
            }
        };
        if self.has_batch_axis() { Value::Array(vec![row]) } else { row }
    }

    fn derived_input(&self) -> Option<JobInput> {
        if self.is_opaque {
            return None;
        }
        let tensor = |input: &InputSpec| {
            let lengths = lengths(input);
            let data = fitting_bytes(input).repeat(lengths.iter().product());
            let shape = self.has_batch_axis().then_some(1).into_iter().chain(lengths).collect();
            InputTensor { shape, data }
        };
        Some(JobInput { rows: 1, tensors: self.inputs.iter().map(tensor).collect() })
    }
}

/// The lengths of the axes of a row in a derived sample.
fn lengths(input: &InputSpec) -> Vec<usize> {
    let elements = input.shape.with_length(LENGTH).fold(1, usize::saturating_mul);
    input.shape.with_length(if elements > MOST_ELEMENTS { 1 } else { LENGTH }).collect()
}

fn nested(lengths: &[usize], element: &Value) -> Value {
    match lengths.split_first() {
        None => element.clone(),
        Some((length, inner)) => Value::Array(vec![nested(inner, element); *length]),
    }
}

/// A value that the input accepts.
fn fitting_value(input: &InputSpec) -> Result<Value, String> {
    let fits = |value: &Value| from_json::append(&mut Vec::new(), input.allowed(), value.into()).is_ok();
    candidates(input)
        .into_iter()
        .find(fits)
        .ok_or_else(|| format!("the bounds of input `{}` accept no value", input.name))
}

/// The bytes of that value. A checked description has one.
fn fitting_bytes(input: &InputSpec) -> Vec<u8> {
    let mut bytes = Vec::new();
    let value = fitting_value(input).unwrap_or_default();
    if from_json::append(&mut bytes, input.allowed(), (&value).into()).is_err() {
        bytes = vec![0; input.datatype.width().unwrap_or(size_of::<u32>())];
    }
    bytes
}

/// Values of which at least one is within the bounds, unless none is: zero, the middle, and the next value to each bound.
fn candidates(input: &InputSpec) -> Vec<Value> {
    let (low, high) = (input.greater_than, input.less_than);
    let middle = low.zip(high).map(|(low, high)| low / 2.0 + high / 2.0);
    let numbers: Vec<f64> = match input.datatype {
        DataType::Bool => return vec![Value::Bool(false)],
        DataType::Bytes => return vec![Value::String(String::new())],
        DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64 => {
            let next = |bound| next_above(input.datatype, bound);
            let above = low.into_iter().flat_map(|bound| [bound + 1.0, next(bound)]);
            let below = high.into_iter().flat_map(|bound| [bound - 1.0, -next(-bound)]);
            middle.into_iter().chain(above).chain(below).collect()
        }
        _ => {
            let ends = [low.map(|bound| bound.floor() + 1.0), high.map(|bound| bound.ceil() - 1.0)];
            middle.map(f64::round).into_iter().chain(ends.into_iter().flatten()).collect()
        }
    };
    let numbers = numbers.into_iter().filter_map(Number::from_f64).map(Value::Number);
    std::iter::once(Value::from(0)).chain(numbers).collect()
}

fn elements_in(value: &Value) -> usize {
    match value {
        Value::Array(values) => values.iter().map(elements_in).sum(),
        Value::Object(values) => values.values().map(elements_in).sum(),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        super::{Axis, description::tests::flowers},
        *,
    };

    fn model(datatype: DataType, axes: &[Axis], low: Option<f64>, high: Option<f64>) -> Model {
        let mut model = flowers();
        model.sample = None;
        let input = &mut model.inputs[0];
        (input.datatype, input.shape, input.features) =
            (datatype, axes.iter().copied().collect(), Vec::new());
        (input.greater_than, input.less_than) = (low, high);
        model
    }

    #[test]
    fn a_derived_sample_is_valid_input() {
        let bounds = [
            (None, None),
            (Some(0.0), None),
            (None, Some(0.0)),
            (Some(2.5), Some(9.0)),
            (Some(1.0), Some(1.000_000_1)),
            (Some(-1e30), Some(-1e29)),
        ];
        for datatype in DataType::ALL {
            for (low, high) in bounds {
                let model = model(datatype, &[Axis::Fixed(2), Axis::Variable], low, high);
                if model.check_sample().is_ok() {
                    let read = model.read_data(&model.derived_data());
                    assert_eq!(read.ok(), model.sample_input(), "{datatype:?} {low:?} {high:?}");
                }
            }
        }
    }

    #[test]
    fn bounds_without_a_value_between_them_are_refused() {
        let error = |datatype, low, high| model(datatype, &[], Some(low), Some(high)).check_sample();
        let none = Err("the bounds of input `x` accept no value".to_owned());
        assert_eq!(error(DataType::Int32, 0.0, 1.0), none);
        assert_eq!(error(DataType::Uint8, -5.0, 0.0), none);
        assert_eq!(error(DataType::Fp32, 2.0, 1.0), none);
        assert_eq!(error(DataType::Fp64, 1.0, 1.0 + 3.0 * f64::EPSILON), Ok(()));
    }

    #[test]
    fn a_large_sample_is_not_shown_and_a_huge_one_is_short() {
        let image = model(DataType::Fp32, &[Axis::Fixed(3), Axis::Variable, Axis::Variable], None, None);
        assert_eq!(image.shown_sample(), None);
        assert_eq!(image.sample_input().unwrap().tensors[0].shape, [1, 3, 32, 32]);
        let text = model(DataType::Int64, &[Axis::Variable], None, None);
        assert_eq!(text.shown_sample(), Some(json!([vec![0; 32]])));
        let huge = model(DataType::Uint8, &[Axis::Variable; 5], None, None);
        assert_eq!(huge.sample_input().unwrap().tensors[0].shape, [1; 6]);
        let mut whole = text;
        whole.max_batch = 0;
        assert_eq!(whole.shown_sample(), Some(json!(vec![0; 32])));
    }

    #[test]
    fn a_large_sample_of_the_description_is_kept_as_tensors() {
        let mut text = model(DataType::Uint8, &[Axis::Variable], None, None);
        text.sample = Some(json!([vec![7; MOST_SHOWN + 1]]));
        text.convert_large_sample();
        assert_eq!((&text.sample, text.shown_sample()), (&None, None));
        assert_eq!(text.sample_input().unwrap().tensors[0].data, vec![7; MOST_SHOWN + 1]);
        text.sample = Some(json!([[7]]));
        text.large_sample = None;
        text.convert_large_sample();
        assert_eq!(text.shown_sample(), Some(json!([[7]])));
    }
}
