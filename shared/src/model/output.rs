//! Checks the output of a model against the description, and writes results as JSON.

mod tensors;
mod text;

use std::ops::Range;

pub use self::tensors::StoredOutputs;
use self::text::{Elements, Listed, Row};
use super::{Axis, Model, OutputSpec, Shape, elements_of};
use crate::tensor::{DataType, Element, Tensor, bytes, with_element};

/// The output of a model does not fit its description. The text is safe for clients.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum OutputError {
    /// Wrong shape.
    #[error("The model answered with shape {given:?} instead of {expected} in the output `{output}`")]
    Shape {
        /// Its name.
        output: String,
        /// The output.
        given: Vec<usize>,
        /// The description.
        expected: Shape,
    },
    /// Fewer or more elements than the shape says.
    #[error("The model answered with {given} values instead of {expected} in the output `{output}`")]
    Length {
        /// Its name.
        output: String,
        /// The output.
        given: usize,
        /// The shape.
        expected: usize,
    },
    /// Wrong element type.
    #[error("The model answered with {given} instead of {expected} in the output `{output}`")]
    DataType {
        /// Its name.
        output: String,
        /// The output.
        given: &'static str,
        /// The description.
        expected: &'static str,
    },
    /// NaN or infinity.
    #[error("The model answered with a value that is not a finite number in the output `{output}`")]
    NotFinite {
        /// Its name.
        output: String,
    },
    /// Fewer outputs than described.
    #[error("The model answered without the output `{output}`")]
    Missing {
        /// Its name.
        output: String,
    },
    /// The result is too large.
    #[error("The result is larger than {most} bytes")]
    TooLarge {
        /// The limit, bytes.
        most: usize,
    },
}

/// A job's result that is a prediction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The `result` of the API, JSON text.
    pub json: String,
    /// The class of the first row, if the model has classes.
    pub class_name: Option<String>,
}

impl Model {
    /// Checks shape, type and number of elements of all outputs for `rows` rows. The tensors are in the order of the description.
    /// [`Model::render`] checks that the numbers are finite where they must be, since that concerns single jobs.
    ///
    /// # Errors
    /// The first difference.
    pub fn check_outputs(&self, rows: usize, tensors: Vec<Tensor>) -> Result<Answer, OutputError> {
        let mut tensors = tensors.into_iter();
        let rows = self.has_batch_axis().then_some(rows);
        let mut next = |spec: &OutputSpec| match tensors.next() {
            Some(tensor) => checked(spec, rows, tensor),
            None => Err(OutputError::Missing { output: spec.name.clone() }),
        };
        let first = next(&self.output)?;
        let further = self.further_outputs.iter().map(next).collect::<Result<_, _>>()?;
        Ok(Answer { first, further })
    }

    /// Whether no result of this many rows can exceed `bytes`.
    #[must_use]
    pub fn rows_within(&self, bytes: usize) -> usize {
        // The result contains the first row twice.
        (bytes.saturating_sub(text::RESULT_BYTES) / self.most_row_bytes()).saturating_sub(1)
    }

    /// Bytes that a row can have in a result; the largest number if there is no limit.
    fn most_row_bytes(&self) -> usize {
        let listed = match self.further_outputs.as_slice() {
            [] => 0,
            _ => self.outputs().fold(0, |bytes, output| output.most_listed_bytes().saturating_add(bytes)),
        };
        self.most_prediction_bytes().saturating_add(listed)
    }

    fn most_prediction_bytes(&self) -> usize {
        let OutputSpec { datatype, shape, labels, .. } = &self.output;
        let Some(longest) = datatype.longest_json() else { return usize::MAX };
        let Some(values) = shape.elements() else { return usize::MAX };
        let numbers = values.saturating_mul(longest + 1);
        let label = labels.iter().filter_map(|label| Some(serde_json::to_string(label).ok()?.len())).max();
        match label {
            Some(label) => {
                numbers.saturating_add(text::CLASSIFIED_BYTES + labels.len().to_string().len() + label)
            }
            // A pair of brackets around each list; an axis has no more lists than there are values.
            None => numbers
                .saturating_add(text::PLAIN_BYTES)
                .saturating_add(values.saturating_mul(2 * shape.axes().len())),
        }
    }

    /// Writes these rows of an answer as the result of one job, at most `most` bytes.
    ///
    /// # Errors
    /// When a row contains NaN or infinity although the description forbids it, or the result is larger. At most `most` bytes are
    /// written.
    pub fn render(&self, answer: &Answer, rows: Range<usize>, most: usize) -> Result<Rendered, OutputError> {
        if self.is_opaque {
            let json = self.value_of(answer, rows, most)?.json();
            return Ok(Rendered { json, class_name: None });
        }
        self.check_finite(answer, &rows)?;
        let class = self.class_of_first(answer, &rows);
        let listed = (!self.further_outputs.is_empty()).then(|| self.listed(answer, &rows));
        let row = |index| self.row(answer.first.rows(&(index..index + 1)), answer.first.row_shape());
        let json = text::result(rows.map(row), listed.as_deref(), most);
        Ok(Rendered { json: json.map_err(|_| OutputError::TooLarge { most })?, class_name: class })
    }

    fn check_finite(&self, answer: &Answer, rows: &Range<usize>) -> Result<(), OutputError> {
        let is_wrong = |(spec, output): &(&OutputSpec, &Checked)| {
            spec.must_be_finite() && !is_finite(spec.datatype, output.rows(rows))
        };
        let wrong = self.outputs().zip(answer.outputs()).find(is_wrong);
        wrong.map_or(Ok(()), |(spec, _)| Err(OutputError::NotFinite { output: spec.name.clone() }))
    }

    /// The name of the class of the first row, if the model has classes.
    fn class_of_first(&self, answer: &Answer, rows: &Range<usize>) -> Option<String> {
        let first = answer.first.rows(&(rows.start..rows.start + rows.len().min(1)));
        self.class(first).map(|(_, name)| name.to_owned())
    }

    fn row<'a>(&'a self, data: &'a [u8], shape: &'a [usize]) -> Row<'a> {
        let class = self.class(data);
        // The probabilities are a flat list, whatever axes of length 1 are before it.
        let shape = if class.is_some() { &shape[shape.len().saturating_sub(1)..] } else { shape };
        Row { elements: Elements { datatype: self.output.datatype, data }, shape, class }
    }

    /// These rows of all outputs.
    fn listed<'a>(&'a self, answer: &'a Answer, rows: &Range<usize>) -> Vec<Listed<'a>> {
        let listed = |(spec, output): (&'a OutputSpec, &'a Checked)| Listed {
            name: &spec.name,
            rows: self.has_batch_axis().then_some(rows.len()),
            row_shape: output.row_shape(),
            elements: Elements { datatype: spec.datatype, data: output.rows(rows) },
        };
        self.outputs().zip(answer.outputs()).map(listed).collect()
    }

    /// The class of a row of the first output, if the model has classes: its number and its name.
    fn class(&self, row: &[u8]) -> Option<(usize, &str)> {
        if self.output.labels.is_empty() {
            return None;
        }
        let class = with_element!(self.output.datatype, T => argmax(T::all(row)), BYTES => 0);
        self.output.labels.get(class).map(|label| (class, label.as_str()))
    }
}

impl OutputSpec {
    /// Bytes that a row can have in the list of outputs, with those around all rows.
    fn most_listed_bytes(&self) -> usize {
        let (Some(longest), Some(elements)) = (self.datatype.longest_json(), self.shape.elements()) else {
            return usize::MAX;
        };
        let around = text::LISTED_BYTES + (self.shape.axes().len() + 1) * text::AXIS_BYTES;
        let name = serde_json::to_string(&self.name).map_or(0, |name| name.len());
        elements.saturating_mul(longest + 1).saturating_add(around + name)
    }
}

/// Outputs that fit the description.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    first: Checked,
    further: Vec<Checked>,
}

impl Answer {
    /// The elements of the first output.
    #[must_use]
    pub fn first(&self) -> &Tensor {
        &self.first.tensor
    }

    /// The data of these rows of the first output.
    pub(super) fn rows_of_first(&self, rows: &Range<usize>) -> &[u8] {
        self.first.rows(rows)
    }

    fn outputs(&self) -> impl Iterator<Item = &Checked> {
        std::iter::once(&self.first).chain(&self.further)
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Checked {
    tensor: Tensor,
    /// Number of axes before those of a row.
    batch_axes: usize,
    row_bytes: RowBytes,
}

/// Checks an output of this many rows, or of a model without a batch axis.
fn checked(spec: &OutputSpec, rows: Option<usize>, tensor: Tensor) -> Result<Checked, OutputError> {
    let output = || spec.name.clone();
    if tensor.datatype != spec.datatype {
        let (given, expected) = (tensor.datatype.as_str(), spec.datatype.as_str());
        return Err(OutputError::DataType { output: output(), given, expected });
    }
    let batch_axes = usize::from(rows.is_some());
    let (batch, row_shape) = tensor.shape.split_at(batch_axes.min(tensor.shape.len()));
    if batch.first() != rows.as_ref() || !spec.shape.fits(row_shape) {
        let expected = spec.shape.behind(rows.map(Axis::Fixed));
        return Err(OutputError::Shape { output: output(), given: tensor.shape, expected });
    }
    let rows = rows.unwrap_or(1);
    let row_elements = elements_of(row_shape);
    let row_bytes = row_elements.and_then(|elements| RowBytes::of(&tensor, elements));
    match row_bytes.filter(|row| row.total(rows) == Some(tensor.data.len())) {
        Some(row_bytes) => Ok(Checked { tensor, batch_axes, row_bytes }),
        None => {
            let expected = row_elements.unwrap_or(usize::MAX).saturating_mul(rows);
            Err(OutputError::Length { output: output(), given: tensor.elements(), expected })
        }
    }
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
    /// Of rows with this many elements each. `None` if there is no whole number of rows.
    fn of(tensor: &Tensor, elements: usize) -> Option<Self> {
        match tensor.datatype.width() {
            Some(width) => elements.checked_mul(width).map(Self::Same),
            None if elements == 0 => Some(Self::Same(0)),
            None => bytes::parts(&tensor.data, elements).map(Self::From),
        }
    }

    fn total(&self, rows: usize) -> Option<usize> {
        match self {
            Self::Same(bytes) => rows.checked_mul(*bytes),
            Self::From(starts) => starts.last().copied().filter(|_| starts.len() == rows + 1),
        }
    }
}

impl Checked {
    fn row_shape(&self) -> &[usize] {
        &self.tensor.shape[self.batch_axes..]
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
