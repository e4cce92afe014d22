//! What the fuzz targets in `tests/fuzz` call: ids, replies of Redis, model descriptions, ONNX files, with what must
//! hold whatever the bytes are. A unit test runs the committed seeds through the same functions.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is a finding")]

use serde_json::Value;

pub use crate::queue::fuzzing::script_reply;
use crate::{
    content::{self, Content},
    job::{JobId, input::ResultForm},
    model::{Model, elements_of, onnx_file::OnnxFile},
    process::trace,
    tensor::{
        InputError, MOST_ERRORS, Tensor,
        open_inference::{Given, binary, json},
        pointer::Pointer,
        stored::{self, StoredTensor},
        stored_outputs,
    },
};

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
    let Ok(model) = Model::parse(text) else { return };
    // What starts with this description can work with it.
    let Some(sample) = model.sample_input() else { return };
    if let Some(shown) = model.shown_sample() {
        assert_eq!(model.read_data(&shown), Ok(sample.clone()));
    }
    assert_eq!(model.read_stored(&model.stored(&sample)), Ok(sample.clone()));
    if !model.has_batch_axis() {
        assert_eq!(model.concatenate([&sample].into_iter()).rows, 1);
        return;
    }
    let batch = model.concatenate([&sample, &sample].into_iter());
    assert_eq!(batch.rows, 2 * sample.rows);
    for (tensor, input) in batch.inputs.iter().zip(&model.inputs) {
        assert!(input.shape.fits(&tensor.shape[1..]) && tensor.shape[0] == batch.rows, "{:?}", tensor.shape);
        assert_eq!(Some(tensor.elements()), elements_of(&tensor.shape));
    }
    assert!(model.metadata().is_object());
}

/// Stored tensors. What can be read is stored in the same bytes, unless a number was written longer than necessary.
pub fn stored_tensors(bytes: &[u8]) {
    let Ok(tensors) = stored::read(bytes) else { return };
    let mut again = Vec::new();
    for StoredTensor { datatype, shape, data } in &tensors {
        assert_eq!(
            Some(data.len()),
            datatype.width().map_or(Some(data.len()), |width| Some(width * elements_of(shape)?))
        );
        stored::append(&mut again, *datatype, shape, data);
    }
    assert!(again.len() <= bytes.len());
    assert_eq!(stored::read(&again), Ok(tensors));
}

/// Tensors as JSON of the Open Inference Protocol.
pub fn tensors_json(text: &[u8]) {
    let Ok(list) = serde_json::from_slice::<Value>(text) else { return };
    let Some(tensors) = checked(json::read(&list, Pointer::ROOT)) else { return };
    let mut written = Vec::new();
    json::write(tensors.iter().map(Tensor::view), &mut written).unwrap();
    let list: Value = serde_json::from_slice(&written).unwrap();
    assert_eq!(checked(json::read(&list, Pointer::ROOT)).unwrap(), tensors);
}

/// Tensors in the binary form of the Open Inference Protocol. The first line is the value of the header.
pub fn tensors_binary(bytes: &[u8]) {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return };
    let Ok((text, raw)) = binary::split(&bytes[..end], &bytes[end + 1..]) else { return };
    let Ok(list) = serde_json::from_slice::<Value>(text) else { return };
    let Some(tensors) = checked(binary::read(&list, raw, binary::Unknown::Refused, Pointer::ROOT)) else {
        return;
    };
    let mut written = Vec::new();
    binary::write_list(tensors.iter().map(Tensor::view), &mut written).unwrap();
    let list: Value = serde_json::from_slice(&written).unwrap();
    let raw: Vec<u8> = tensors.iter().flat_map(|tensor| tensor.data.iter().copied()).collect();
    assert_eq!(checked(binary::read(&list, &raw, binary::Unknown::Refused, Pointer::ROOT)).unwrap(), tensors);
}

/// The input of a job, and a result, as Redis holds them.
pub fn stored_job(bytes: &[u8]) {
    if let Ok((form, tensors)) = ResultForm::of(bytes) {
        assert_eq!(ResultForm::of(&form.with(tensors.to_vec())), Ok((form, tensors)));
    }
    if let Ok(content) = Content::read(bytes) {
        assert_eq!(content.stored(), bytes);
        if let Content::Bytes { content_type, bytes } = content {
            let json: Value = serde_json::from_str(&Content::json(content)).unwrap();
            assert_eq!(json["content_type"], content_type);
            assert!(content::most_json_bytes(bytes.len()) >= content.json().len());
        }
    }
    if let Ok(tensors) = stored_outputs::read(bytes) {
        assert_eq!(stored_outputs::read(&stored_outputs::write(tensors.iter().cloned())), Ok(tensors));
    }
}

/// The tensors, if they were accepted.
fn checked(outcome: Result<Vec<Given>, Vec<InputError>>) -> Option<Vec<Tensor>> {
    match outcome {
        Ok(given) => {
            for given in &given {
                let elements = given.tensor.shape.iter().product::<usize>();
                assert_eq!(given.tensor.elements(), elements);
                assert!(elements > 0);
            }
            Some(given.into_iter().map(|given| given.tensor).collect())
        }
        Err(errors) => {
            assert!((1..=MOST_ERRORS).contains(&errors.len()));
            assert!(errors.iter().all(|error| !error.detail.is_empty()));
            None
        }
    }
}

/// An ONNX file.
pub fn onnx_file(content: &[u8]) {
    assert!(OnnxFile::is_read_as_a_whole(content));
    let Ok(file) = OnnxFile::parse(content) else { return };
    assert!(file.inputs.iter().chain(&file.outputs).all(|value| !value.name.is_empty()));
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
        replay("onnx_file", onnx_file);
        replay("script_reply", script_reply);
        replay("tensors_json", tensors_json);
        replay("tensors_binary", tensors_binary);
        replay("stored_tensors", stored_tensors);
        replay("stored_job", stored_job);
    }
}
