//! The body of `POST /predict`: turns JSON into a submission, or reports everything that is wrong with it.

use std::{sync::Arc, time::Duration};

use serde_json::{Map, Value, json};
use tepal_shared::{
    job::{Charge, Priority, UnknownWord},
    model::{InputError, Model},
    tensor::number::{kind, large},
};

use crate::{
    error::{MOST_MISTAKES, Mistake, in_words},
    http::json::pointer_to,
    jobs::models::{MODEL, Served},
};

/// The largest `max_queue_seconds` and `timeout_seconds`.
pub(crate) const LONGEST_SECONDS: u32 = 86_400;

/// A valid submission.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) model: Arc<Served>,
    /// The input as stored tensors.
    pub(crate) input: Vec<u8>,
    /// How many rows.
    pub(crate) rows: usize,
    pub(crate) priority: Priority,
    /// Longest wait before the first attempt.
    pub(crate) max_queue: Option<Duration>,
    /// Longest time from the first attempt on.
    pub(crate) timeout: Option<Duration>,
    /// Who pays for it, if it is large.
    pub(crate) charge: Option<Charge>,
}

impl Submission {
    /// A job of this model without rows.
    pub(crate) fn new(model: Arc<Served>) -> Self {
        let (priority, max_queue, timeout, charge) = Default::default();
        Self { model, input: Vec::new(), rows: 0, priority, max_queue, timeout, charge }
    }

    /// Reads the body of a job of this model.
    pub(crate) fn read(body: Value, model: &Arc<Served>) -> Result<Self, Vec<Mistake>> {
        let Value::Object(fields) = body else {
            let detail = format!("must be an object with the field {DATA}, not {}", kind(&body));
            return Err(vec![Mistake::at("", "type", detail)]);
        };
        let mut reader = MemberReader { submission: Self::new(Arc::clone(model)), mistakes: Vec::new() };
        let has_data = fields.contains_key(DATA);
        for (name, value) in fields {
            // Of very many wrong fields, the first ones are reported.
            if reader.mistakes.len() >= MOST_MISTAKES {
                break;
            }
            reader.field(&name, &value, &model.description);
        }
        if !has_data {
            reader.mistakes.insert(0, Mistake::at(format!("/{DATA}"), "missing", "is missing"));
        }
        reader.mistakes.truncate(MOST_MISTAKES);
        if reader.mistakes.is_empty() { Ok(reader.submission) } else { Err(reader.mistakes) }
    }

    /// The JSON Schema of the body, from that of a priority.
    pub(crate) fn schema(priority: &Value) -> Value {
        let members = FIELDS.iter().map(|field| (field.name.to_owned(), (field.schema)(priority)));
        json!({
            "type": "object",
            "required": [DATA],
            "additionalProperties": false,
            "properties": members.collect::<Map<String, Value>>(),
        })
    }

    /// The model's sample as a submission.
    pub(crate) fn sample(model: Arc<Served>) -> Self {
        let sample = model.description.sample_input();
        let input = model.description.stored(&sample);
        Self { input, rows: sample.rows, ..Self::new(model) }
    }
}

struct MemberReader {
    submission: Submission,
    mistakes: Vec<Mistake>,
}

/// A member of the body.
struct Field {
    name: &'static str,
    read: fn(&mut MemberReader, &'static str, &Value, &Model),
    /// Its schema, from that of a priority.
    schema: fn(&Value) -> Value,
}

/// Every member of the body.
const FIELDS: [Field; 5] = [
    Field { name: DATA, read: MemberReader::data, schema: |_| data_schema() },
    // It has been read before the others, which depend on it.
    Field {
        name: MODEL,
        read: |_, _, _, _| {},
        schema: |_| json!({"type": "string", "description": "The name of a model; without it, the default model"}),
    },
    Field { name: "priority", read: MemberReader::priority, schema: with_default },
    Field {
        name: "max_queue_seconds",
        read: |reader, name, value, _| reader.submission.max_queue = reader.span(name, value),
        schema: |_| span_schema("The job fails if its first attempt has not begun by then"),
    },
    Field {
        name: "timeout_seconds",
        read: |reader, name, value, _| reader.submission.timeout = reader.span(name, value),
        schema: |_| {
            span_schema("The job fails if it has not ended within this time after its first attempt began")
        },
    },
];
/// The only member that every body has.
const DATA: &str = "data";

/// What a model takes is in its description, not in the contract.
fn data_schema() -> Value {
    json!({"description": "The rows. `data_schema` of GET /models/{name} is the schema of a model's rows"})
}

fn with_default(priority: &Value) -> Value {
    let mut schema = priority.clone();
    schema["default"] = Priority::default().as_str().into();
    schema
}

fn span_schema(description: &str) -> Value {
    json!({
        "type": "number",
        "exclusiveMinimum": 0,
        "maximum": LONGEST_SECONDS,
        "description": description,
    })
}

impl MemberReader {
    fn field(&mut self, name: &str, value: &Value, model: &Model) {
        if let Some(field) = FIELDS.iter().find(|field| field.name == name) {
            return (field.read)(self, field.name, value, model);
        }
        let known = in_words(&FIELDS.map(|field| field.name));
        let detail = format!("is not a field of this request; known are {known}");
        self.mistakes.push(Mistake::at(pointer_to(name), "unknown_field", detail));
    }

    fn data(&mut self, _: &'static str, value: &Value, model: &Model) {
        match model.read_data(value) {
            Ok(read) => {
                self.submission.rows = read.rows;
                self.submission.input = model.stored(&read);
            }
            Err(errors) => self.mistakes.extend(errors.into_iter().map(InputError::into)),
        }
    }

    fn priority(&mut self, name: &'static str, value: &Value, _: &Model) {
        let mistake = |code, detail: String| Mistake::at(format!("/{name}"), code, detail);
        let outcome = match value {
            Value::String(word) => word
                .parse()
                .map_err(|UnknownWord { expected, .. }| mistake("unknown_value", one_of(expected))),
            other => {
                let expected = one_of(&Priority::ALL.map(Priority::as_str).join(", "));
                Err(mistake("type", format!("{expected}, not {}", kind(other))))
            }
        };
        match outcome {
            Ok(priority) => self.submission.priority = priority,
            Err(mistake) => self.mistakes.push(mistake),
        }
    }

    fn span(&mut self, name: &str, value: &Value) -> Option<Duration> {
        let seconds = match value {
            Value::Number(number) => number.as_f64(),
            _ if large(value).is_some() => None,
            other => {
                let detail = format!("must be a number, not {}", kind(other));
                self.mistakes.push(Mistake::at(format!("/{name}"), "type", detail));
                return None;
            }
        };
        let seconds = seconds.filter(|seconds| *seconds > 0.0 && *seconds <= f64::from(LONGEST_SECONDS));
        if seconds.is_none() {
            let given = large(value).map_or_else(|| value.to_string(), str::to_owned);
            let detail = format!("must be greater than 0 and at most {LONGEST_SECONDS}, but is {given}");
            self.mistakes.push(Mistake::at(format!("/{name}"), "out_of_range", detail));
        }
        // Rounded up to whole milliseconds, because 0 means "no limit" in the store.
        seconds.map(|seconds| Duration::from_millis((seconds * 1000.0).ceil() as u64))
    }
}

fn one_of(words: &str) -> String {
    format!("must be one of {words}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::models::iris;

    fn read(body: Value) -> Result<Submission, Vec<(String, &'static str)>> {
        let place = |mistake: Mistake| match mistake.location {
            crate::error::Location::Pointer(pointer) => (pointer, mistake.code),
            other => panic!("{other:?}"),
        };
        Submission::read(body, &iris()).map_err(|mistakes| mistakes.into_iter().map(place).collect())
    }

    fn row() -> Value {
        json!([[5.1, 3.5, 1.4, 0.2]])
    }

    #[test]
    fn all_fields_are_read() {
        let body =
            json!({"data": row(), "priority": "high", "max_queue_seconds": 0.5, "timeout_seconds": 86_400});
        let submission = read(body).unwrap();
        assert_eq!((submission.rows, submission.input.len()), (1, 19));
        assert_eq!(submission.priority, Priority::High);
        assert_eq!(submission.max_queue, Some(Duration::from_millis(500)));
        assert_eq!(submission.timeout, Some(Duration::from_secs(86_400)));
    }

    #[test]
    fn a_very_short_limit_is_still_a_limit() {
        let submission = read(json!({"data": row(), "timeout_seconds": 1e-9})).unwrap();
        assert_eq!(submission.timeout, Some(Duration::from_millis(1)));
    }

    #[test]
    fn limits_out_of_range_are_refused() {
        for bad in [json!(0), json!(-1), json!(86_400.001), json!(1e300)] {
            assert_eq!(
                read(json!({"data": row(), "max_queue_seconds": bad})).unwrap_err(),
                [("/max_queue_seconds".to_owned(), "out_of_range")]
            );
        }
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let body = json!({"a/b~c": 1, "priority": null, "timeout_seconds": "1"});
        let expected = [
            ("/data", "missing"),
            ("/a~1b~0c", "unknown_field"),
            ("/priority", "type"),
            ("/timeout_seconds", "type"),
        ];
        let expected: Vec<_> = expected.map(|(place, code)| (place.to_owned(), code)).into();
        assert_eq!(read(body).unwrap_err(), expected);
    }

    #[test]
    fn a_body_of_another_shape_is_refused() {
        for body in [json!([]), json!("x"), Value::Null, json!(1), json!(true)] {
            assert_eq!(read(body).unwrap_err(), [(String::new(), "type")]);
        }
    }
}
