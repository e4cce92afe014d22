//! Entry points of the fuzz targets in `tests/fuzz`: answers of a model server, and what must hold for any bytes. A unit test
//! runs the committed seeds through the same functions.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is a finding")]

use std::{path::Path, sync::LazyLock, time::Duration};

use serde::de::IgnoredAny;
use serde_json::Value;
use tepal_shared::{
    content::{Content, is_content_type},
    model::{Answer, Model},
    tensor::{
        DataType, Element as _, Tensor, bytes,
        stored::{self, StoredTensor},
    },
};

use crate::backend::{
    fuzzing as backend, http_fuzzing as http, onnx_fuzzing as onnx, open_inference_fuzzing as open_inference,
};

static IRIS: LazyLock<Model> = LazyLock::new(|| {
    let models = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../compose/models"));
    Model::load(models, "iris").unwrap()
});

/// A tensor as TensorFlow Serving sends it. The call had as many rows as its first axis.
pub fn model_reply(bytes: &[u8]) {
    let Some(Ok(answer)) = backend::tensor(bytes) else { return };
    assert_eq!(backend::resent(&answer).unwrap(), answer);
    check_answer(vec![answer]);
}

/// An answer of a server of the Open Inference Protocol.
pub fn open_inference_reply(bytes: &[u8]) {
    let Some(Ok(answer)) = open_inference::outputs(bytes, &IRIS) else { return };
    assert_eq!(open_inference::returned(&answer, &IRIS).unwrap(), answer);
    check_answer(answer);
}

/// Results are those of an answer, if it fits the model.
fn check_answer(answer: Vec<Tensor>) {
    let rows = answer[0].shape.first().copied().unwrap_or(1);
    let Ok(answer) = IRIS.check_outputs(rows, answer) else { return };
    if rows > 0 {
        for (from, count) in [(0, rows), (0, 1), (rows - 1, 1)] {
            check_rendered(&answer, from, count);
        }
    }
}

/// A result is JSON with the values of the answer.
fn check_rendered(answer: &Answer, from: usize, rows: usize) {
    let width = IRIS.output.shape.fewest_elements();
    let is_finite = finite(answer, from * width, (from + rows) * width);
    let Ok(rendered) = IRIS.render(answer, from..from + rows, usize::MAX) else {
        return assert!(!is_finite, "{answer:?}");
    };
    assert!(is_finite, "{answer:?}");
    let result: Value = serde_json::from_str(&rendered.json).unwrap();
    let class = result["prediction"].as_u64().unwrap() as usize;
    assert_eq!(rendered.class_name.as_ref(), IRIS.output.labels.get(class));
    let probabilities = result["probabilities"].as_array().unwrap();
    assert!(probabilities.iter().all(|value| value.as_f64() <= probabilities[class].as_f64()));
    let all = result["predictions"].as_array().map_or(1, Vec::len);
    assert_eq!(all, rows);
}

fn finite(answer: &Answer, start: usize, end: usize) -> bool {
    let tensor = answer.first();
    assert_eq!(tensor.datatype, DataType::Fp32);
    f32::all(&tensor.data).skip(start).take(end - start).all(f32::is_finite)
}

/// Stored tensors as the built-in engine takes and returns them.
pub fn onnx_tensors(bytes: &[u8]) {
    let Ok(tensors) = stored::read(bytes) else { return };
    for StoredTensor { datatype, shape, data } in tensors {
        let is_text = || bytes::elements(data).all(|element| std::str::from_utf8(element).is_ok());
        let is_known = match datatype {
            DataType::Bytes => is_text(),
            DataType::Bf16 => false,
            // Requests with another byte are refused.
            DataType::Bool if data.iter().any(|byte| *byte > 1) => continue,
            _ => true,
        };
        let tensor = Tensor { name: "x".to_owned(), datatype, shape, data: data.to_vec() };
        match onnx::round_trip(&tensor) {
            Ok(same) => assert!(is_known && same == tensor, "{same:?}"),
            // The engine cannot take long axes beside one of length 0.
            Err(error) => assert!(!is_known || data.is_empty(), "{error}"),
        }
    }
}

/// An answer of an HTTP endpoint. The first byte is the number of jobs that share the call, 0 for one job alone; the rest of the first line
/// is the content type.
pub fn http_answer(bytes: &[u8]) {
    let Some((jobs, rest)) = bytes.split_first() else { return };
    let Some(end) = rest.iter().position(|byte| *byte == b'\n') else { return };
    let (content_type, body) = (std::str::from_utf8(&rest[..end]), &rest[end + 1..]);
    if let Some(text) = http::said(body) {
        assert!((1..=203).contains(&text.chars().count()) && !text.chars().any(char::is_control), "{text}");
    }
    if let Some(pause) = std::str::from_utf8(body).ok().and_then(http::pause) {
        assert!(pause <= Duration::from_secs(60));
    }
    let Some(content_type) = content_type.ok().filter(|text| is_content_type(text)) else { return };
    let jobs = (*jobs > 0).then_some(usize::from(*jobs));
    let Ok(data) = http::values(content_type, body, jobs) else { return };
    let values: Vec<_> = bytes::elements(&data).map(|value| Content::read(value).unwrap()).collect();
    assert_eq!(values.len(), jobs.unwrap_or(1));
    for value in values {
        match value {
            Content::Json(text) => {
                assert_eq!(text.trim(), text);
                serde_json::from_str::<IgnoredAny>(text).unwrap();
            }
            Content::Bytes { bytes, .. } => assert_eq!(bytes, body),
        }
    }
}

/// TensorFlow Serving's metadata of a model.
pub fn model_metadata(bytes: &[u8]) {
    if let Some(Ok(metadata)) = backend::metadata(bytes) {
        assert!(metadata["metadata"]["signature_def"].is_object());
    }
}

/// The metadata of a model, from a server of the Open Inference Protocol.
pub fn open_inference_metadata(bytes: &[u8]) {
    if let Some((metadata, interface)) = open_inference::metadata(bytes, &IRIS) {
        assert!(metadata["metadata"]["signature_def"]["serving_default"]["inputs"].is_object());
        assert!(interface.description(&[]).contains("max_batch = "));
    }
}

#[cfg(test)]
mod tests {
    use tepal_tests::seeds::replay;

    use super::*;

    #[test]
    fn the_seeds_of_the_fuzz_targets_pass() {
        replay("model_reply", model_reply);
        replay("onnx_tensors", onnx_tensors);
        replay("model_metadata", model_metadata);
        replay("open_inference_reply", open_inference_reply);
        replay("open_inference_metadata", open_inference_metadata);
        replay("http_answer", http_answer);
    }
}
