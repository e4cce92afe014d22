//! Writes the rows of an output as the `result` of the API: the first row, and all of them when there are several.

use std::io::{self, Write};

use crate::tensor::{
    DataType, nested,
    open_inference::json::{write_elements, write_head, write_list},
};

/// Bytes around the values of a row, and of all rows.
pub(super) const CLASSIFIED_BYTES: usize = r#"{"prediction":,"class_name":,"probabilities":[]},"#.len();
pub(super) const PLAIN_BYTES: usize = r#"{"prediction":},"#.len();
pub(super) const RESULT_BYTES: usize = r#","predictions":[]"#.len();

pub(super) const LISTED_BYTES: usize =
    r#","outputs":[{"name":,"shape":[],"datatype":"UINT16","data":[]}]"#.len();
/// Bytes of the longest length of an axis, and a comma.
pub(super) const AXIS_BYTES: usize = 21;

/// Elements of an output.
#[derive(Clone, Copy)]
pub(super) struct Elements<'a> {
    pub(super) datatype: DataType,
    pub(super) data: &'a [u8],
}

/// One row of the first output.
pub(super) struct Row<'a> {
    pub(super) elements: Elements<'a>,
    /// Shape of the row.
    pub(super) shape: &'a [usize],
    /// Number and name of the class, if the model has classes.
    pub(super) class: Option<(usize, &'a str)>,
}

/// The rows of a job in one of several outputs.
pub(super) struct Listed<'a> {
    pub(super) name: &'a str,
    /// `None` if the model has no batch axis.
    pub(super) rows: Option<usize>,
    pub(super) row_shape: &'a [usize],
    pub(super) elements: Elements<'a>,
}

/// The result as JSON: a row, all rows if there are several, and all outputs if there are several.
///
/// # Errors
/// When it has more than `most` bytes, at the first byte above.
pub(super) fn result<'a>(
    rows: impl ExactSizeIterator<Item = Row<'a>> + Clone,
    outputs: Option<&[Listed<'_>]>,
    most: usize,
) -> io::Result<String> {
    let mut text = Bounded { bytes: Vec::with_capacity(128), most };
    text.write_all(b"{")?;
    if let Some(first) = rows.clone().next() {
        first.write_members(&mut text)?;
    }
    if rows.len() > 1 {
        text.write_all(br#","predictions":"#)?;
        write_list(rows, &mut text, |row, text| {
            text.write_all(b"{")?;
            row.write_members(text)?;
            text.write_all(b"}")
        })?;
    }
    if let Some(outputs) = outputs {
        text.write_all(br#","outputs":"#)?;
        write_list(outputs, &mut text, Listed::write)?;
    }
    text.write_all(b"}")?;
    String::from_utf8(text.bytes).map_err(io::Error::other)
}

impl Row<'_> {
    fn write_members(&self, text: &mut Bounded) -> io::Result<()> {
        match self.class {
            Some((number, name)) => {
                text.write_all(br#""prediction":"#)?;
                serde_json::to_writer(&mut *text, &number)?;
                text.write_all(br#","class_name":"#)?;
                serde_json::to_writer(&mut *text, name)?;
                text.write_all(br#","probabilities":"#)?;
            }
            None => text.write_all(br#""prediction":"#)?,
        }
        let Elements { datatype, data } = self.elements;
        nested::write(datatype, data, self.shape, text)
    }
}

impl Listed<'_> {
    /// As the Open Inference Protocol writes a tensor: the elements are a flat list.
    fn write(&self, text: &mut Bounded) -> io::Result<()> {
        let Elements { datatype, data } = self.elements;
        let shape = self.rows.iter().chain(self.row_shape);
        write_head(self.name, shape, datatype, text)?;
        text.write_all(br#","data":"#)?;
        write_elements(datatype, data, text)?;
        text.write_all(b"}")
    }
}

/// Text up to a limit of bytes.
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
