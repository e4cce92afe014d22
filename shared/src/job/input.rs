//! The input of a job as Redis holds it: stored tensors or stored [`content`](crate::content), and before it the version that the client pinned, if any, and what the
//! result contains, unless it is a prediction.

use crate::tensor::stored::{self, StoredError};

/// The first byte if the result is tensors. No stored tensor and no stored content begins with it: there is no datatype 15.
const OUTPUTS: u8 = 0xff;
/// The first byte if the client pinned a version. It comes before [`OUTPUTS`].
const PINNED: u8 = 0xfe;

/// The input of a job that only this version of its model may run.
#[must_use]
pub fn pin(version: &str, input: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(input.len() + version.len() + 2);
    bytes.push(PINNED);
    stored::append_text(&mut bytes, version);
    bytes.extend_from_slice(input);
    bytes
}

/// Divides the input of a job into the version that its client pinned, if any, and the rest.
///
/// # Errors
/// When the version cannot be read.
pub fn pinned(input: &[u8]) -> Result<(Option<&str>, &[u8]), StoredError> {
    let Some(mut rest) = input.strip_prefix(&[PINNED]) else { return Ok((None, input)) };
    let version = stored::text(&mut rest)?;
    Ok((Some(version), rest))
}

/// What the result of a job contains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ResultForm {
    /// The prediction, written by the worker as JSON.
    #[default]
    Prediction,
    /// These outputs as tensors; all of the model if there is no name.
    Outputs(Vec<String>),
}

impl ResultForm {
    /// The input of a job with this result, from its stored tensors.
    #[must_use]
    pub fn with(&self, tensors: Vec<u8>) -> Vec<u8> {
        let Self::Outputs(names) = self else { return tensors };
        let mut bytes = Vec::with_capacity(tensors.len() + 16);
        bytes.push(OUTPUTS);
        stored::append_number(&mut bytes, names.len());
        names.iter().for_each(|name| stored::append_text(&mut bytes, name));
        bytes.extend_from_slice(&tensors);
        bytes
    }

    /// Divides the input of a job into the form of its result and its stored tensors.
    ///
    /// # Errors
    /// When the form cannot be read.
    pub fn of(input: &[u8]) -> Result<(Self, &[u8]), StoredError> {
        let Some(mut rest) = input.strip_prefix(&[OUTPUTS]) else { return Ok((Self::Prediction, input)) };
        let count = stored::number(&mut rest)?;
        // Each name has a byte at least.
        if count > rest.len() {
            return Err(StoredError::Incomplete);
        }
        let names = (0..count).map(|_| stored::text(&mut rest).map(str::to_owned));
        let names = names.collect::<Result<_, _>>()?;
        Ok((Self::Outputs(names), rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_read_as_it_was_written() {
        let some = ["y", "label"].map(str::to_owned).to_vec();
        for form in [ResultForm::Prediction, ResultForm::Outputs(vec![]), ResultForm::Outputs(some)] {
            let input = form.with(b"\x11\x01\x07".to_vec());
            assert_eq!(ResultForm::of(&input), Ok((form, &b"\x11\x01\x07"[..])));
        }
    }

    /// Jobs outlive an upgrade, so these bytes never change.
    #[test]
    fn the_bytes_are_those_of_the_format() {
        assert_eq!(ResultForm::Prediction.with(b"\x11\x01\x07".to_vec()), b"\x11\x01\x07");
        let form = ResultForm::Outputs(vec!["y".to_owned()]);
        assert_eq!(form.with(b"\x11\x01\x07".to_vec()), b"\xff\x01\x01y\x11\x01\x07");
        assert_eq!(pin("12", b"\x11\x01\x07"), b"\xfe\x0212\x11\x01\x07");
    }

    #[test]
    fn a_pinned_version_is_read_as_it_was_written() {
        let input = ResultForm::Outputs(vec![]).with(b"\x11\x01\x07".to_vec());
        assert_eq!(pinned(&input), Ok((None, &input[..])));
        assert_eq!(pinned(&pin("1", &input)), Ok((Some("1"), &input[..])));
        for bad in [&b"\xfe"[..], b"\xfe\x05y", b"\xfe\x01\xff"] {
            assert!(pinned(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn damaged_bytes_are_refused() {
        for bad in [
            &b"\xff"[..],
            b"\xff\x02\x01y",
            b"\xff\x01\x05y",
            b"\xff\xff\xff\xff\xff\x0f",
            b"\xff\x01\x01\xff",
        ] {
            assert!(ResultForm::of(bad).is_err(), "{bad:?}");
        }
    }
}
