//! What the fuzz targets in `tests/fuzz` call: ids, replies of Redis, model descriptions, with what must hold
//! whatever the bytes are. A unit test runs the committed seeds through the same functions.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is a finding")]

use std::path::Path;

pub use crate::queue::fuzzing::script_reply;
use crate::{job::JobId, model::Model, process::trace};

/// A job's id.
pub fn job_id(text: &[u8]) {
    let Some(id) = parsed::<JobId>(text) else { return };
    assert_eq!(id.to_string().parse(), Ok(id));
    assert_eq!(u8::from_str_radix(&id.to_string()[34..], 16), Ok(id.partition()));
}

fn parsed<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A client's `traceparent` as spans are made of it.
pub fn span_context(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    if let Some(header) = trace::reread(text) {
        assert_eq!(trace::reread(&header), Some(header));
    }
}

/// A `model.toml`.
pub fn model_description(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    let Some(model) = Model::checked(text, Path::new("models/m")) else { return };
    // What starts with this description can work with it.
    let sample = model.read_rows(&model.sample).unwrap();
    let batch = model.concatenate([&sample, &sample].into_iter());
    assert_eq!(batch.rows, 2 * sample.rows);
    for (tensor, input) in batch.inputs.iter().zip(&model.inputs) {
        assert_eq!(tensor.elements(), batch.rows * input.elements());
    }
    assert!(model.metadata().is_object());
}

#[cfg(test)]
mod tests {
    use tepal_tests::seeds::replay;

    use super::*;

    #[test]
    fn the_seeds_of_the_fuzz_targets_pass() {
        replay("job_id", job_id);
        replay("traceparent", span_context);
        replay("model_description", model_description);
        replay("script_reply", script_reply);
    }
}
