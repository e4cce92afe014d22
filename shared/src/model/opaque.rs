//! Opaque models: any JSON value or any bytes go in and come out. Inside, a value is one element of BYTES, the stored form of its
//! [`Content`]. So batches, limits and the search for the job to blame are the same as for other models.

use std::ops::Range;

use super::{
    Answer, InputSpec, InputTensor, JobInput, Model, OutputError, OutputSpec, Shape, StoredMismatch,
};
use crate::{
    content::{Content, append_json},
    json::JsonRef,
    tensor::{DataType, InputError, InputErrors, bytes, pointer::Pointer, stored::StoredError},
};

/// Why tensors are refused.
const NO_TENSORS: &str = "must be omitted: the model has no tensors, it takes any JSON value as data";
/// The name of the only input and of the only output.
const NAME: &str = "data";

/// The input of every opaque model.
pub(super) fn input() -> InputSpec {
    InputSpec {
        name: NAME.to_owned(),
        datatype: DataType::Bytes,
        shape: Shape::default(),
        features: Vec::new(),
        greater_than: None,
        less_than: None,
    }
}

/// The output of every opaque model.
pub(super) fn output() -> OutputSpec {
    OutputSpec {
        name: NAME.to_owned(),
        datatype: DataType::Bytes,
        shape: Shape::default(),
        labels: Vec::new(),
        finite: None,
    }
}

impl Model {
    /// The inputs that a client can send as tensors: none of an opaque model.
    #[must_use]
    pub fn client_inputs(&self) -> &[InputSpec] {
        if self.is_opaque { &[] } else { &self.inputs }
    }

    /// The outputs that a client can get as tensors: none of an opaque model.
    pub fn client_outputs(&self) -> impl Iterator<Item = &OutputSpec> {
        self.outputs().filter(|_| !self.is_opaque)
    }

    /// Whether a request may have tensors or names of outputs at this place.
    pub(super) fn check_has_tensors(&self, at: Pointer<'_>) -> Result<(), Vec<InputError>> {
        let mut errors = InputErrors::default();
        if self.is_opaque {
            errors.add(at, "unknown_field", NO_TENSORS);
        }
        errors.or(())
    }

    /// Any JSON value as the input of a job. It is written without white space, however the client wrote it.
    pub(super) fn read_value(
        &self,
        value: JsonRef<'_>,
        place: Pointer<'_>,
    ) -> Result<JobInput, Vec<InputError>> {
        let mut errors = InputErrors::default();
        find_large(value, place, &mut errors);
        errors.or(())?;
        self.one_element(|stored| append_json(stored, &value)).ok_or_else(|| {
            let detail = "has more than 4 GiB".to_owned();
            vec![InputError { pointer: place.to_string(), detail, code: "length" }]
        })
    }

    /// Bytes as the input of a job; `None` for a model that takes only JSON.
    pub(super) fn read_bytes(&self, content_type: &str, bytes: &[u8]) -> Option<JobInput> {
        let content = Content::Bytes { content_type, bytes };
        if self.takes_only_json() { None } else { self.one_element(|stored| stored.extend(content.stored())) }
    }

    /// Bytes do not fit into a JSON array.
    pub(super) fn takes_only_json(&self) -> bool {
        self.is_opaque && self.has_batch_axis()
    }

    /// The stored form of the input of a job.
    pub(super) fn stored_value(input: &JobInput) -> Vec<u8> {
        only_element(input).to_vec()
    }

    /// Reads the stored form of the input of a job.
    pub(super) fn read_stored_value(&self, stored: &[u8]) -> Result<JobInput, StoredMismatch> {
        match Content::read(stored)? {
            Content::Bytes { .. } if self.takes_only_json() => Err(StoredMismatch::RawBody),
            _ => self
                .one_element(|element| element.extend_from_slice(stored))
                .ok_or(StoredMismatch::Unreadable(StoredError::Content)),
        }
    }

    /// The value with which the model answered the job in these rows, which are one.
    ///
    /// # Errors
    /// When its result has more than `most` bytes.
    pub fn value_of<'a>(
        &self,
        answer: &'a Answer,
        rows: Range<usize>,
        most: usize,
    ) -> Result<Content<'a>, OutputError> {
        let missing = || OutputError::Missing { output: NAME.to_owned() };
        let element = bytes::elements(answer.rows_of_first(&rows)).next().ok_or_else(missing)?;
        let content = Content::read(element).map_err(|_| missing())?;
        let length = match content {
            Content::Json(text) => text.len(),
            Content::Bytes { bytes, .. } => bytes.len(),
        };
        if length > most { Err(OutputError::TooLarge { most }) } else { Ok(content) }
    }

    /// The input whose only element is the stored form that is written.
    fn one_element(&self, write: impl FnOnce(&mut Vec<u8>)) -> Option<JobInput> {
        let mut data = vec![0; bytes::LENGTH];
        write(&mut data);
        let (length, stored) = data.split_first_chunk_mut::<{ bytes::LENGTH }>()?;
        *length = u32::try_from(stored.len()).ok()?.to_le_bytes();
        let shape = self.has_batch_axis().then_some(1).into_iter().collect();
        Some(JobInput { rows: 1, tensors: vec![InputTensor { shape, data }] })
    }
}

fn only_element(input: &JobInput) -> &[u8] {
    input.tensors.first().and_then(|tensor| bytes::elements(&tensor.data).next()).unwrap_or_default()
}

/// Numbers beyond a 64-bit float were replaced when the request was parsed.
fn find_large(value: JsonRef<'_>, place: Pointer<'_>, errors: &mut InputErrors) {
    if errors.is_full() {
        return;
    }
    if let Some(number) = value.large() {
        let detail = format!("must be a number that a 64-bit float can represent, but is {number}");
        return errors.add(place, "not_representable", detail);
    }
    match value {
        JsonRef::List(list) => {
            list.iter()
                .enumerate()
                .for_each(|(index, value)| find_large(value, place.element(index), errors));
        }
        JsonRef::Object(members) => {
            members.iter().for_each(|(name, value)| find_large(value, place.member(name), errors));
        }
        JsonRef::Null | JsonRef::Bool(_) | JsonRef::Number(_) | JsonRef::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{json::replace_large, tensor::Tensor};

    fn model(more: &str) -> Model {
        Model::parse(&format!("name = \"m\"\nversion = \"1\"\n{more}\n[http]\nurl = \"http://127.0.0.1:1/\""))
            .unwrap()
    }

    fn stored(model: &Model, data: &Value) -> Vec<u8> {
        model.stored(&model.read_data(data).unwrap())
    }

    #[test]
    fn any_json_value_is_stored_as_compact_text() {
        for max_batch in ["", "max_batch = 8"] {
            let model = model(max_batch);
            let data = json!({"prompt": "é", "n": [1, 2.5, null, true]});
            let stored = stored(&model, &data);
            assert_eq!((stored[0], &stored[1..]), (0xe0, data.to_string().as_bytes()));
            let (input, _) = model.read_job(&stored).unwrap();
            assert_eq!((input.rows, model.stored(&input)), (1, stored));
        }
        for data in [json!(null), json!(5), json!("a"), json!([]), json!({})] {
            assert_eq!(stored(&model(""), &data)[1..], *data.to_string().as_bytes());
        }
    }

    #[test]
    fn bytes_keep_their_content_type_and_need_a_call_of_their_own() {
        let one = model("");
        let input = one.raw_input("image/png", b"\x89PNG").unwrap();
        let stored = one.stored(&input);
        assert_eq!(stored, b"\xe1\x09image/png\x89PNG");
        assert_eq!(one.read_job(&stored).unwrap().0, input);
        let many = model("max_batch = 8");
        assert!(many.raw_input("image/png", b"").is_none() && !many.takes_raw() && one.takes_raw());
        assert_eq!(many.read_job(&stored).unwrap_err(), StoredMismatch::RawBody);
    }

    #[test]
    fn numbers_that_no_float_holds_are_named() {
        let text = replace_large(r#"{"a": [1, 1e400], "b": {"c": -1e999}}"#).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        let errors = model("").read_data(&value).unwrap_err();
        let found: Vec<_> = errors.iter().map(|error| (error.pointer.as_str(), error.code)).collect();
        assert_eq!(found, [("/data/a/1", "not_representable"), ("/data/b/c", "not_representable")]);
        assert!(errors[0].detail.ends_with("is 1e400"), "{}", errors[0].detail);
    }

    #[test]
    fn stored_tensors_do_not_fit() {
        let error = model("").read_job(&[0x11, 1, 7]).unwrap_err().to_string();
        assert_eq!(error, "its stored form cannot be read: it is neither a JSON value nor a raw body");
    }

    #[test]
    fn each_job_gets_its_value_of_a_shared_answer() {
        let model = model("max_batch = 8");
        let mut data = Vec::new();
        for content in [Content::Json("{\"a\": 1}"), Content::Bytes { content_type: "a/b", bytes: b"xyz" }] {
            bytes::append(&mut data, &content.stored()).unwrap();
        }
        let tensor = Tensor { name: "data".to_owned(), datatype: DataType::Bytes, shape: vec![2], data };
        let answer = model.check_outputs(2, vec![tensor]).unwrap();
        assert_eq!(model.value_of(&answer, 0..1, 8), Ok(Content::Json("{\"a\": 1}")));
        assert_eq!(model.value_of(&answer, 0..1, 7), Err(OutputError::TooLarge { most: 7 }));
        let bytes = Content::Bytes { content_type: "a/b", bytes: b"xyz" };
        assert_eq!(model.value_of(&answer, 1..2, 3), Ok(bytes));
        assert_eq!(model.value_of(&answer, 1..2, 2), Err(OutputError::TooLarge { most: 2 }));
        assert_eq!(model.render(&answer, 0..1, 100).unwrap().json, "{\"a\": 1}");
        assert_eq!(model.render(&answer, 1..2, 100).unwrap().json, r#"{"content_type":"a/b","b64":"eHl6"}"#);
    }
}
