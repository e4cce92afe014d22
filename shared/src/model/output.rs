//! Checks the output of a model against the description, and writes results as JSON.

mod text;

use std::ops::Range;

use self::text::Row;
use super::{Model, OutputSpec};
use crate::tensor::{DataType, Element, Tensor, bytes, with_element};

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
    DataType {
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
    /// Checks shape, type and number of elements of an output for `rows` rows. [`Model::render`] checks that the numbers are finite
    /// where they must be, since that concerns single jobs.
    ///
    /// # Errors
    /// The first difference.
    pub fn check_output(&self, rows: usize, tensor: Tensor) -> Result<Answer, OutputError> {
        let expected: Vec<usize> = std::iter::once(rows).chain(self.output.shape.iter().copied()).collect();
        if tensor.datatype != self.output.datatype {
            let (given, expected) = (tensor.datatype.as_str(), self.output.datatype.as_str());
            return Err(OutputError::DataType { given, expected });
        }
        if tensor.shape != expected {
            return Err(OutputError::Shape { given: tensor.shape, expected });
        }
        let width = self.output.elements();
        let row_bytes = match tensor.datatype.width() {
            Some(bytes) => Some(RowBytes::Same(width * bytes)),
            None => bytes::parts(&tensor.data, width).map(RowBytes::From),
        };
        match row_bytes.filter(|row| row.total(rows) == Some(tensor.data.len())) {
            Some(row_bytes) => Ok(Answer { tensor, row_bytes }),
            None => {
                Err(OutputError::Length { given: tensor.elements(), expected: rows.saturating_mul(width) })
            }
        }
    }

    /// Whether no result of this many rows can exceed `bytes`.
    #[must_use]
    pub fn rows_within(&self, bytes: usize) -> usize {
        // The result contains the first row twice.
        (bytes.saturating_sub(text::RESULT_BYTES) / self.most_row_bytes()).saturating_sub(1)
    }

    /// Bytes that a row can have in a result; the largest number if there is no limit.
    fn most_row_bytes(&self) -> usize {
        let OutputSpec { datatype, shape, labels, .. } = &self.output;
        let Some(longest) = datatype.longest_json() else { return usize::MAX };
        let values = self.output.elements();
        let numbers = values.saturating_mul(longest + 1);
        let label = labels.iter().filter_map(|label| Some(serde_json::to_string(label).ok()?.len())).max();
        match label {
            Some(label) => {
                numbers.saturating_add(text::CLASSIFIED_BYTES + labels.len().to_string().len() + label)
            }
            // A pair of brackets around each list; an axis has no more lists than there are values.
            None => numbers
                .saturating_add(text::PLAIN_BYTES)
                .saturating_add(values.saturating_mul(2 * shape.len())),
        }
    }

    /// Writes these rows of an answer as the result of one job, at most `most` bytes.
    ///
    /// # Errors
    /// When a row contains NaN or infinity although the description forbids it, or the result is larger. At most `most` bytes are
    /// written.
    pub fn render(&self, answer: &Answer, rows: Range<usize>, most: usize) -> Result<Rendered, OutputError> {
        let datatype = answer.tensor.datatype;
        if rows.is_empty() {
            return Err(OutputError::Length { given: 0, expected: self.output.elements() });
        }
        if self.output.must_be_finite() && !is_finite(datatype, answer.rows(&rows)) {
            return Err(OutputError::NotFinite);
        }
        let class = self.class(datatype, answer.rows(&(rows.start..rows.start + 1)));
        let row = |index| self.row(datatype, answer.rows(&(index..index + 1)));
        let json = text::result(rows.map(row), most).map_err(|_| OutputError::TooLarge { most })?;
        Ok(Rendered { json, class_name: class.map(|(_, name)| name.to_owned()) })
    }

    fn row<'a>(&'a self, datatype: DataType, data: &'a [u8]) -> Row<'a> {
        Row { datatype, data, shape: &self.output.shape, class: self.class(datatype, data) }
    }

    /// The class of a row, if the model has classes: its number and its name.
    fn class(&self, datatype: DataType, row: &[u8]) -> Option<(usize, &str)> {
        if self.output.labels.is_empty() {
            return None;
        }
        let class = with_element!(datatype, T => argmax(T::all(row)), BYTES => 0);
        self.output.labels.get(class).map(|label| (class, label.as_str()))
    }
}

/// An output that fits the description.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    tensor: Tensor,
    row_bytes: RowBytes,
}

/// Where the rows of an output are in its data.
#[derive(Clone, Debug, PartialEq)]
enum RowBytes {
    /// All have as many bytes.
    Same(usize),
    /// Where each row begins, and the end of the last.
    From(Vec<usize>),
}

impl RowBytes {
    fn total(&self, rows: usize) -> Option<usize> {
        match self {
            Self::Same(bytes) => rows.checked_mul(*bytes),
            Self::From(starts) => starts.last().copied().filter(|_| starts.len() == rows + 1),
        }
    }
}

impl Answer {
    /// The elements of the output.
    #[must_use]
    pub fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    fn rows(&self, rows: &Range<usize>) -> &[u8] {
        match &self.row_bytes {
            RowBytes::Same(bytes) => &self.tensor.data[rows.start * bytes..rows.end * bytes],
            RowBytes::From(starts) => &self.tensor.data[starts[rows.start]..starts[rows.end]],
        }
    }
}

fn is_finite(datatype: DataType, data: &[u8]) -> bool {
    with_element!(datatype, T => T::all(data).all(Element::is_finite), BYTES => true)
}

/// Index of the largest value, the first of equal ones. NaN is no value.
fn argmax<T: Element>(row: impl Iterator<Item = T>) -> usize {
    let is_nan = |value: &T| value.partial_cmp(value).is_none();
    let values = row.enumerate().filter(|(_, value)| !is_nan(value));
    values.reduce(|best, next| if next.1 > best.1 { next } else { best }).map_or(0, |(index, _)| index)
}

#[cfg(test)]
mod tests;
