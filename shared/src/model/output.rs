//! Checks the output of a model against the description, and writes results as JSON.

use std::{
    io::{self, Write},
    ops::Range,
};

use serde::{Serialize, Serializer, ser::SerializeSeq as _};

use super::{Model, OutputSpec};
use crate::tensor::{Tensor, Values};

/// The output of a model does not fit its description. The text is safe for clients.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum OutputError {
    /// Wrong shape.
    #[error("The model answered with shape {given:?} instead of {expected:?}")]
    Shape {
        /// The output.
        given: Vec<usize>,
        /// The description.
        expected: Vec<usize>,
    },
    /// Fewer or more elements than the shape says.
    #[error("The model answered with {given} values instead of {expected}")]
    Length {
        /// The output.
        given: usize,
        /// The shape.
        expected: usize,
    },
    /// Wrong element type.
    #[error("The model answered with {given} instead of {expected}")]
    DType {
        /// The output.
        given: &'static str,
        /// The description.
        expected: &'static str,
    },
    /// NaN or infinity.
    #[error("The model answered with a value that is not a finite number")]
    NotFinite,
    /// The result is too large.
    #[error("The result is larger than {most} bytes")]
    TooLarge {
        /// The limit, bytes.
        most: usize,
    },
}

/// A job's result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The `result` of the API, JSON text.
    pub json: String,
    /// The class of the first row, if the model has classes.
    pub class_name: Option<String>,
}

impl Model {
    /// Checks shape, type and number of elements of an output for `rows` rows. [`Model::render`] checks that the numbers are finite,
    /// since that concerns single jobs.
    ///
    /// # Errors
    /// The first difference.
    pub fn check_output(&self, rows: usize, answer: &Tensor) -> Result<(), OutputError> {
        let expected: Vec<usize> = std::iter::once(rows).chain(self.output.shape.iter().copied()).collect();
        if answer.values.dtype() != self.output.dtype {
            let (given, expected) = (answer.values.dtype().as_str(), self.output.dtype.as_str());
            return Err(OutputError::DType { given, expected });
        }
        if answer.shape != expected {
            return Err(OutputError::Shape { given: answer.shape.clone(), expected });
        }
        let (given, expected) = (answer.values.len(), expected.iter().product());
        if given != expected {
            return Err(OutputError::Length { given, expected });
        }
        Ok(())
    }

    /// Whether no result of this many rows can exceed `bytes`.
    #[must_use]
    pub fn rows_within(&self, bytes: usize) -> usize {
        // The result contains the first row twice.
        (bytes.saturating_sub(RESULT_BYTES) / self.most_row_bytes()).saturating_sub(1)
    }

    fn most_row_bytes(&self) -> usize {
        let OutputSpec { dtype, shape, labels, .. } = &self.output;
        let values = self.output.elements();
        let numbers = values.saturating_mul(dtype.longest_number() + 1);
        let label = labels.iter().filter_map(|label| Some(serde_json::to_string(label).ok()?.len())).max();
        match label {
            Some(label) => numbers.saturating_add(CLASSIFIED_BYTES + labels.len().to_string().len() + label),
            // A pair of brackets around each list; an axis has no more lists than there are values.
            None => {
                numbers.saturating_add(PLAIN_BYTES).saturating_add(values.saturating_mul(2 * shape.len()))
            }
        }
    }

    /// Writes these rows of a checked output as the result of one job, at most `most` bytes.
    ///
    /// # Errors
    /// When a row contains NaN or infinity, or the result is larger. At most `most` bytes are written.
    pub fn render(&self, answer: &Tensor, rows: Range<usize>, most: usize) -> Result<Rendered, OutputError> {
        let width = self.output.elements();
        let (start, end) = (rows.start * width, rows.end * width);
        match &answer.values {
            Values::Float(values) => self.render_rows(&values[start..end], most, |value| value.is_finite()),
            Values::Double(values) => self.render_rows(&values[start..end], most, |value| value.is_finite()),
            Values::Int32(values) => self.render_rows(&values[start..end], most, |_| true),
            Values::Int64(values) => self.render_rows(&values[start..end], most, |_| true),
        }
    }

    fn render_rows<T: Copy + PartialOrd + Serialize>(
        &self,
        values: &[T],
        most: usize,
        is_finite: impl Fn(T) -> bool,
    ) -> Result<Rendered, OutputError> {
        let width = self.output.elements();
        if !values.iter().all(|value| is_finite(*value)) {
            return Err(OutputError::NotFinite);
        }
        let rows: Vec<Row<'_, T>> = values.chunks_exact(width.max(1)).map(|row| self.row(row)).collect();
        let Some(first) = rows.first() else { return Err(OutputError::Length { given: 0, expected: width }) };
        let class_name = match first {
            Row::Classified { class_name, .. } => Some((*class_name).to_owned()),
            Row::Plain { .. } => None,
        };
        let result = JobResult { first, predictions: (rows.len() > 1).then_some(&rows) };
        Ok(Rendered { json: written(&result, most)?, class_name })
    }

    fn row<'a, T: Copy + PartialOrd + Serialize>(&'a self, values: &'a [T]) -> Row<'a, T> {
        let class = argmax(values);
        match self.output.labels.get(class) {
            Some(class_name) => Row::Classified { prediction: class, class_name, probabilities: values },
            None => Row::Plain { prediction: Nested { values, shape: &self.output.shape } },
        }
    }
}

/// Bytes around the values of a row, and of all rows.
const CLASSIFIED_BYTES: usize = r#"{"prediction":,"class_name":,"probabilities":[]},"#.len();
const PLAIN_BYTES: usize = r#"{"prediction":},"#.len();
const RESULT_BYTES: usize = r#","predictions":[]"#.len();

/// The result as JSON.
fn written(result: &impl Serialize, most: usize) -> Result<String, OutputError> {
    let mut text = Bounded { bytes: Vec::with_capacity(128), most };
    // Numbers, labels and fixed names always have a JSON form, so the limit is the only error.
    serde_json::to_writer(&mut text, result).map_err(|_| OutputError::TooLarge { most })?;
    Ok(String::from_utf8(text.bytes).unwrap_or_default())
}

/// Writes up to a limit of bytes.
struct Bounded {
    bytes: Vec<u8>,
    most: usize,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() > self.most - self.bytes.len() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The `result` of the API: the first row, and all of them when there are several.
#[derive(Serialize)]
struct JobResult<'a, T: Serialize> {
    #[serde(flatten)]
    first: &'a Row<'a, T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    predictions: Option<&'a Vec<Row<'a, T>>>,
}

/// One row of an output. Written from the typed values: a 32-bit float converted to 64 bits is longer, but not more exact.
#[derive(Serialize)]
#[serde(untagged)]
enum Row<'a, T: Serialize> {
    Classified { prediction: usize, class_name: &'a str, probabilities: &'a [T] },
    Plain { prediction: Nested<'a, T> },
}

/// Values as nested lists of this shape; a scalar for an empty shape.
struct Nested<'a, T> {
    values: &'a [T],
    shape: &'a [usize],
}

impl<T: Serialize> Serialize for Nested<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.shape.split_first() {
            None => self.values.first().serialize(serializer),
            Some((_, [])) => self.values.serialize(serializer),
            Some((length, shape)) => {
                let width = shape.iter().product::<usize>().max(1);
                let mut list = serializer.serialize_seq(Some(*length))?;
                for values in self.values.chunks_exact(width) {
                    list.serialize_element(&Nested { values, shape })?;
                }
                list.end()
            }
        }
    }
}

/// Index of the largest value, the first of equal ones.
fn argmax<T: Copy + PartialOrd>(row: &[T]) -> usize {
    let better = |best: usize, (index, value): (usize, &T)| if *value > row[best] { index } else { best };
    row.iter().enumerate().fold(0, better)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{super::description::tests::flowers, *};
    use crate::tensor::DType;

    /// No limit.
    const ANY: usize = usize::MAX;

    fn answer(shape: &[usize], values: &[f32]) -> Tensor {
        Tensor { name: "p".to_owned(), shape: shape.to_vec(), values: Values::Float(values.to_vec()) }
    }

    #[test]
    fn one_row_reads_as_specified() {
        let rendered = flowers().render(&answer(&[1, 2], &[0.25, 0.75]), 0..1, ANY).unwrap();
        assert_eq!(rendered.class_name.as_deref(), Some("tulip"));
        let json: Value = serde_json::from_str(&rendered.json).unwrap();
        assert_eq!(json, json!({"prediction": 1, "class_name": "tulip", "probabilities": [0.25, 0.75]}));
    }

    #[test]
    fn several_rows_add_a_list_and_a_job_sees_only_its_own() {
        let answer = answer(&[3, 2], &[0.9, 0.1, 0.2, 0.8, 0.6, 0.4]);
        let rendered = flowers().render(&answer, 1..3, ANY).unwrap();
        let json: Value = serde_json::from_str(&rendered.json).unwrap();
        assert_eq!(json["class_name"], "tulip");
        assert_eq!(json["predictions"][1]["class_name"], "rose");
        assert_eq!(json["predictions"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn floats_are_written_as_short_as_they_are_exact() {
        let rendered = flowers().render(&answer(&[1, 2], &[0.1, 0.9]), 0..1, ANY).unwrap();
        assert!(rendered.json.contains("[0.1,0.9]"), "{}", rendered.json);
    }

    #[test]
    fn a_result_of_few_enough_rows_is_as_small_as_predicted() {
        let sizes = |model: &Model, row: &[f64]| {
            let rows = 40;
            let values = match model.output.dtype {
                DType::Float => Values::Float(row.repeat(rows).iter().map(|value| *value as f32).collect()),
                _ => Values::Double(row.repeat(rows)),
            };
            let shape = std::iter::once(rows).chain(model.output.shape.iter().copied()).collect();
            let answer = Tensor { name: "p".to_owned(), shape, values };
            (1..=rows)
                .map(move |rows| model.render(&answer, 0..rows, ANY).unwrap().json.len())
                .collect::<Vec<_>>()
        };
        let long = -1.234_567_89e-6;
        let classified = flowers();
        let mut plain = flowers();
        (plain.output.labels, plain.output.shape) = (Vec::new(), vec![1, 2, 1]);
        plain.output.dtype = DType::Double;
        for model in [classified, plain] {
            for (rows, size) in (1..).zip(sizes(&model, &[long, long])) {
                assert!(model.rows_within(size - 1) < rows, "{size} bytes for {rows} rows");
                let is_close = rows < 5 || model.rows_within(2 * size) >= rows;
                assert!(is_close, "{rows} rows have only {size} bytes");
            }
        }
    }

    #[test]
    fn a_result_has_as_many_bytes_as_it_may_and_no_more() {
        let answer = answer(&[3, 2], &[0.9, 0.1, 0.2, 0.8, 0.6, 0.4]);
        let size = flowers().render(&answer, 0..3, ANY).unwrap().json.len();
        assert!(flowers().render(&answer, 0..3, size).is_ok());
        for most in [0, 1, size / 2, size - 1] {
            assert_eq!(flowers().render(&answer, 0..3, most), Err(OutputError::TooLarge { most }));
        }
    }

    #[test]
    fn an_output_that_does_not_fit_is_explained() {
        let model = flowers();
        let error = model.check_output(2, &answer(&[1, 2], &[0.5, 0.5])).unwrap_err().to_string();
        assert_eq!(error, "The model answered with shape [1, 2] instead of [2, 2]");
        let error = model.check_output(1, &answer(&[1, 2], &[0.5])).unwrap_err().to_string();
        assert_eq!(error, "The model answered with 1 values instead of 2");
        assert_eq!(model.render(&answer(&[1, 2], &[0.5, f32::NAN]), 0..1, ANY), Err(OutputError::NotFinite));
    }

    #[test]
    fn an_answer_without_classes_keeps_its_shape() {
        let mut model = flowers();
        (model.output.labels, model.output.shape) = (Vec::new(), vec![2, 1]);
        let rendered = model.render(&answer(&[1, 2, 1], &[1.5, 2.0]), 0..1, ANY).unwrap();
        assert_eq!(
            rendered,
            Rendered { json: r#"{"prediction":[[1.5],[2.0]]}"#.to_owned(), class_name: None }
        );
    }
}
