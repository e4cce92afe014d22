//! An answer of an endpoint: JSON or bytes for one job, or a JSON array with a value for each job of the call.

use std::fmt;

use hyper::{
    HeaderMap, Response,
    body::Incoming,
    header::{CONTENT_ENCODING, CONTENT_TYPE},
};
use serde::de::{Deserializer as _, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;
use tepal_shared::{
    content::{Content, is_content_type},
    tensor::bytes,
};

use super::failure;
use crate::{
    backend::{BackendError, Verdict},
    client::{self, Unread},
};

/// The type of bytes without a type, or with one that cannot be stored (RFC 9110, section 8.3).
const UNTYPED: &str = "application/octet-stream";
/// Largest answer to several jobs, unless a single result may be larger. As for TensorFlow Serving.
const LARGEST_SHARED: usize = 64 << 20;

/// What an answer may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// How many values.
    pub(super) values: usize,
    /// Whether they are a JSON array.
    pub(super) is_array: bool,
    /// Largest result of a job.
    pub(super) most_bytes: usize,
}

impl Limits {
    fn most_of_body(self) -> usize {
        if !self.is_array {
            return self.most_bytes;
        }
        // Brackets and commas, and white space that is no part of the values.
        let all = self.most_bytes.saturating_add(2).saturating_mul(self.values);
        all.min(LARGEST_SHARED.max(self.most_bytes.saturating_add(2)))
    }
}

/// Reads an answer. Returns a value for each job, in its stored form, as elements of BYTES.
pub(super) async fn read(response: Response<Incoming>, limits: Limits) -> Result<Vec<u8>, BackendError> {
    let (head, body) = response.into_parts();
    if let Some(coding) = head.headers.get(CONTENT_ENCODING).filter(|coding| *coding != "identity") {
        let coding = String::from_utf8_lossy(coding.as_bytes()).into_owned();
        return Err(BackendError::bad_answer(format!(
            "The endpoint answered with the content coding {coding}, which was not asked for"
        )));
    }
    let body = client::read(body, limits.most_of_body()).await.map_err(|unread| match unread {
        Unread::TooLarge(_) => too_large(limits.most_bytes),
        Unread::Broken(error) => failure::broken(error),
    })?;
    values(content_type(&head.headers), &body, limits)
}

fn too_large(most: usize) -> BackendError {
    BackendError::new(
        Verdict::TooLarge,
        "result_too_large",
        format!("The result is larger than {most} bytes"),
    )
}

fn content_type(headers: &HeaderMap) -> &str {
    let text = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    text.filter(|text| is_content_type(text)).unwrap_or(UNTYPED)
}

/// The values of a body of this type.
fn values(content_type: &str, body: &[u8], limits: Limits) -> Result<Vec<u8>, BackendError> {
    let bad = |error: serde_json::Error| {
        BackendError::bad_answer(format!("The endpoint answered with JSON that is malformed: {error}"))
            .because(error)
    };
    let mut data = Vec::with_capacity(body.len() + 16 * limits.values);
    let mut add = |content: Content<'_>| {
        bytes::append(&mut data, &content.stored()).ok_or_else(|| too_large(limits.most_bytes))
    };
    if limits.is_array {
        if !is_json(content_type) {
            return Err(BackendError::bad_answer(format!(
                "The endpoint answered with {content_type} instead of a JSON array"
            )));
        }
        let Values { kept, count } = list(body, limits.values).map_err(bad)?;
        if count != limits.values {
            return Err(BackendError::bad_answer(format!(
                "The endpoint answered with {count} values instead of {}",
                limits.values
            )));
        }
        kept.into_iter().try_for_each(|value| add(Content::Json(value.get())))?;
    } else if is_json(content_type) {
        let value: &RawValue = serde_json::from_slice(body).map_err(bad)?;
        add(Content::Json(value.get()))?;
    } else {
        add(Content::Bytes { content_type, bytes: body })?;
    }
    Ok(data)
}

/// JSON, or a type that is written in JSON (RFC 6839, section 3.1).
fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || essence.ends_with("+json")
}

/// The elements of an array: as many as are wanted, and how many there are.
struct Values<'a> {
    kept: Vec<&'a RawValue>,
    count: usize,
}

fn list(body: &[u8], most: usize) -> serde_json::Result<Values<'_>> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let values = deserializer.deserialize_seq(ValuesVisitor { most })?;
    deserializer.end().map(|()| values)
}

struct ValuesVisitor {
    most: usize,
}

impl<'de> Visitor<'de> for ValuesVisitor {
    type Value = Values<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array with a value for each job")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Values<'de>, A::Error> {
        let mut kept = Vec::new();
        while kept.len() < self.most {
            let Some(value) = elements.next_element()? else { break };
            kept.push(value);
        }
        let mut count = kept.len();
        while elements.next_element::<IgnoredAny>()?.is_some() {
            count += 1;
        }
        Ok(Values { kept, count })
    }
}

/// For the fuzz target of answers.
#[cfg(any(fuzzing, test))]
pub(super) mod fuzzing {
    use super::Limits;

    /// The values of an answer of this type; an error as text.
    pub(crate) fn values(content_type: &str, body: &[u8], jobs: Option<usize>) -> Result<Vec<u8>, String> {
        let limits = Limits { values: jobs.unwrap_or(1), is_array: jobs.is_some(), most_bytes: 1 << 20 };
        super::values(content_type, body, limits).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::{fuzzing::values, *};

    fn read(content_type: &str, body: &str, jobs: Option<usize>) -> Result<Vec<String>, String> {
        let data = values(content_type, body.as_bytes(), jobs)?;
        Ok(bytes::elements(&data).map(|value| Content::read(value).unwrap().json()).collect())
    }

    #[test]
    fn json_is_kept_as_it_was_written() {
        let text = "{\"a\" : [1.10, 1e400, 12345678901234567890123],\n \"é\": null}";
        for content_type in
            ["application/json", "Application/JSON; charset=utf-8", "application/problem+json"]
        {
            assert_eq!(read(content_type, &format!(" \n{text}\n"), None).unwrap(), [text]);
        }
        assert_eq!(read("text/plain", "5", None).unwrap(), [r#"{"content_type":"text/plain","b64":"NQ=="}"#]);
    }

    #[test]
    fn an_array_has_a_value_for_each_job() {
        assert_eq!(
            read("application/json", "[1, {\"a\": []} ,null]", Some(3)).unwrap(),
            ["1", "{\"a\": []}", "null"]
        );
        let wrong = |body: &str, jobs| read("application/json", body, Some(jobs)).unwrap_err();
        assert!(wrong("[1, 2]", 3).contains("with 2 values instead of 3"));
        assert!(wrong("[1, 2, 3, 4]", 3).contains("with 4 values instead of 3"));
        assert!(wrong("{\"a\": 1}", 1).contains("expected an array with a value for each job"));
        assert!(wrong("[1, 2", 2).contains("malformed"));
        assert!(wrong("[1] 2", 1).contains("malformed"));
        assert!(read("text/html", "<p>", Some(1)).unwrap_err().contains("text/html instead of a JSON array"));
    }

    #[test]
    fn malformed_json_is_no_result() {
        for bad in ["", "NaN", "{\"a\": NaN}", "[1", "1 2", "\u{1}"] {
            assert!(read("application/json", bad, None).unwrap_err().contains("malformed"), "{bad}");
        }
        assert!(values("application/json", b"\"\xff\"", None).unwrap_err().contains("malformed"));
    }

    #[test]
    fn the_answer_to_a_call_is_bounded() {
        let limits = |values, is_array, most_bytes| Limits { values, is_array, most_bytes }.most_of_body();
        assert_eq!(limits(1, false, 100), 100);
        assert_eq!(limits(3, true, 100), 306);
        assert_eq!(limits(1000, true, 8 << 20), LARGEST_SHARED);
        assert_eq!(limits(2, true, 256 << 20), (256 << 20) + 2);
    }
}
