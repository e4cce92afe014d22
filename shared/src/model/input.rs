//! Converts a client's `data` to tensors, or lists the wrong elements.

mod reader;
mod tensorflow_json;

use self::reader::Reader;
pub use self::tensorflow_json::Placed;
use super::{JobInput, Model};
use crate::{
    json::{JsonRef, ListRef},
    tensor::{InputError, pointer::Pointer},
};

/// The member of a request that is read here.
const DATA: &str = "data";

impl Model {
    /// Reads the value of `data`: a list of rows if the model has a batch axis, otherwise one value like a row. A row is nested as
    /// the input's shape says. With several inputs, it is an object with such a value under the name of each. An opaque model takes any
    /// value.
    ///
    /// # Errors
    /// The wrong elements, at most [`MOST_ERRORS`](crate::tensor::MOST_ERRORS).
    pub fn read_data<'a>(&self, data: impl Into<JsonRef<'a>>) -> Result<JobInput, Vec<InputError>> {
        let (data, place) = (data.into(), Pointer::ROOT.member(DATA));
        if self.is_opaque {
            return self.read_value(data, place);
        }
        if !self.has_batch_axis() {
            let mut reader = Reader::new(self, None);
            reader.row(data, place);
            return reader.finish(1, place);
        }
        let rows = self.row_list(data, place).map_err(|error| vec![error])?;
        let mut reader = Reader::new(self, Some(rows.len()));
        for (index, row) in rows.iter().enumerate() {
            if reader.errors.is_full() {
                break;
            }
            reader.row(row, place.element(index));
        }
        reader.finish(rows.len(), place)
    }

    /// The rows of a list at this place, as many as the model takes.
    fn row_list<'a>(&self, list: JsonRef<'a>, at: Pointer<'_>) -> Result<ListRef<'a>, InputError> {
        let error = |detail, code| InputError { pointer: at.to_string(), detail, code };
        let most = self.max_batch;
        match list {
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

#[cfg(test)]
mod tests;
