//! The body of `POST /predict`: turns JSON into a submission, or reports everything that is wrong with it.

mod schema;

use std::{sync::Arc, time::Duration};

use serde_json::{Map, Number, Value, json};
use tepal_shared::{
    job::{Charge, Priority, UnknownWord, input::ResultForm},
    json::{JsonRef, ObjectRef},
    model::{InputError, JobInput, Model},
    tensor::{
        open_inference::{
            self,
            binary::{self, Unknown},
        },
        pointer::Pointer,
    },
};

use crate::{
    error::{MOST_MISTAKES, Mistake, in_words},
    http::json::pointer_to,
    jobs::models::{LARGEST_VERSION, MODEL, Served, VERSION},
};

/// The largest `max_queue_seconds` and `timeout_seconds`.
pub(crate) const LONGEST_SECONDS: u32 = 86_400;

/// A valid submission.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) model: Arc<Served>,
    /// The input as it is stored, see [`tepal_shared::job::input`].
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
    pub(crate) fn read<'a>(body: impl Into<JsonRef<'a>>, model: &Arc<Served>) -> Result<Self, Vec<Mistake>> {
        MemberReader::new(model, None).read(body.into(), &model.description)
    }

    /// Reads a body in binary form: its JSON, and the raw bytes of its tensors.
    pub(crate) fn read_binary(
        body: JsonRef<'_>,
        raw: &[u8],
        model: &Arc<Served>,
    ) -> Result<Self, Vec<Mistake>> {
        MemberReader::new(model, Some(raw)).read(body, &model.description)
    }

    /// A body that is the input itself, if the model takes such bodies. The result is as for `data`.
    pub(crate) fn of_raw(content_type: &str, content: &[u8], model: Arc<Served>) -> Option<Self> {
        let read = model.description.raw_input(content_type, content)?;
        let input = model.input(model.description.stored(&read));
        Some(Self { input, rows: read.rows, ..Self::new(model) })
    }

    /// The job of these tensors. Its result is these outputs, or all of the model if there is no name.
    pub(crate) fn of_tensors(model: Arc<Served>, tensors: &JobInput, outputs: Vec<String>) -> Self {
        let stored = model.description.stored(tensors);
        let input = model.input(ResultForm::Outputs(outputs).with(stored));
        Self { input, rows: tensors.rows, ..Self::new(model) }
    }

    /// The JSON Schema of the body, from that of a priority.
    pub(crate) fn schema(priority: &Value) -> Value {
        let members = FIELDS.iter().map(|field| (field.name.to_owned(), (field.schema)(priority)));
        json!({
            "type": "object",
            "oneOf": [{"required": [DATA]}, {"required": [INPUTS]}],
            "dependentRequired": {OUTPUTS: [INPUTS]},
            "additionalProperties": false,
            "properties": members.collect::<Map<String, Value>>(),
        })
    }

    /// The model's sample as a submission, if it has one.
    pub(crate) fn sample(model: Arc<Served>) -> Option<Self> {
        let sample = model.description.sample_input()?;
        let input = model.input(model.description.stored(&sample));
        Some(Self { input, rows: sample.rows, ..Self::new(model) })
    }
}

struct MemberReader<'a> {
    submission: Submission,
    /// The tensors, if the body has any.
    inputs: Option<JobInput>,
    /// The names of the outputs that the client wants.
    outputs: Vec<String>,
    /// The raw bytes after the JSON, in binary form.
    raw: Option<&'a [u8]>,
    mistakes: Vec<Mistake>,
}

/// A member of the body.
struct Field {
    name: &'static str,
    read: fn(&mut MemberReader<'_>, &'static str, JsonRef<'_>, &Model),
    /// Its schema, from that of a priority.
    schema: fn(&Value) -> Value,
}

/// Every member of the body.
const FIELDS: [Field; 8] = [
    Field {
        name: DATA,
        read: |reader, name, value, model| reader.data(name, value, model),
        schema: |_| schema::data(),
    },
    Field {
        name: INPUTS,
        read: |reader, name, value, model| reader.inputs(name, value, model),
        schema: |_| schema::inputs(),
    },
    Field {
        name: OUTPUTS,
        read: |reader, name, value, model| reader.outputs(name, value, model),
        schema: |_| schema::outputs(),
    },
    // It has been read before the others, which depend on it.
    Field {
        name: MODEL,
        read: |_, _, _, _| {},
        schema: |_| json!({"type": "string", "description": "The name of a model; without it, the default model"}),
    },
    // The same holds for the version.
    Field {
        name: VERSION,
        read: |_, _, _, _| {},
        schema: |_| {
            json!({
                "type": ["string", "integer"],
                "minimum": 0,
                "maximum": LARGEST_VERSION as u64,
                "description": "The version of the model; without it, the newest",
            })
        },
    },
    Field {
        name: "priority",
        read: |reader, name, value, model| reader.priority(name, value, model),
        schema: schema::with_default,
    },
    Field {
        name: "max_queue_seconds",
        read: |reader, name, value, _| reader.submission.max_queue = reader.span(name, value),
        schema: |_| schema::span("The job fails if its first attempt has not begun by then"),
    },
    Field {
        name: "timeout_seconds",
        read: |reader, name, value, _| reader.submission.timeout = reader.span(name, value),
        schema: |_| {
            schema::span("The job fails if it has not ended within this time after its first attempt began")
        },
    },
];
/// A body has one of these two.
const DATA: &str = "data";
const INPUTS: &str = "inputs";
const OUTPUTS: &str = "outputs";

impl<'a> MemberReader<'a> {
    fn new(model: &Arc<Served>, raw: Option<&'a [u8]>) -> Self {
        let submission = Submission::new(Arc::clone(model));
        Self { submission, inputs: None, outputs: Vec::new(), raw, mistakes: Vec::new() }
    }

    fn read(mut self, body: JsonRef<'_>, model: &Model) -> Result<Submission, Vec<Mistake>> {
        let JsonRef::Object(fields) = body else {
            let detail = format!("must be an object with the field {DATA}, not {}", body.kind());
            return Err(vec![Mistake::at("", "type", detail)]);
        };
        for (name, value) in fields.iter() {
            // Of very many wrong fields, the first ones are reported.
            if self.mistakes.len() >= MOST_MISTAKES {
                break;
            }
            self.field(name, value, model);
        }
        self.check_forms(fields);
        self.mistakes.truncate(MOST_MISTAKES);
        if self.mistakes.is_empty() { Ok(self.finish(model)) } else { Err(self.mistakes) }
    }

    /// Checks that the input has one form.
    fn check_forms(&mut self, fields: ObjectRef<'_>) {
        let has = |name| fields.get(name).is_some();
        let surplus = self.raw.map_or(0, <[u8]>::len);
        let conflict = |name, detail: &str| Mistake::at(format!("/{name}"), "conflict", detail);
        if !has(DATA) && !has(INPUTS) {
            self.mistakes.insert(0, Mistake::at(format!("/{DATA}"), "missing", "is missing"));
        } else if has(DATA) && has(INPUTS) {
            self.mistakes.push(conflict(INPUTS, "must be omitted, since the request has data"));
        } else if has(DATA) && surplus > 0 {
            let detail =
                format!("must be omitted, since {surplus} raw bytes follow the JSON; they need {INPUTS}");
            self.mistakes.push(conflict(DATA, &detail));
        }
        if has(OUTPUTS) && !has(INPUTS) {
            self.mistakes.push(conflict(OUTPUTS, "must be omitted, since the request has no inputs"));
        }
    }

    fn finish(self, model: &Model) -> Submission {
        let Self { mut submission, inputs, outputs, .. } = self;
        if let Some(inputs) = inputs {
            submission.rows = inputs.rows;
            submission.input = ResultForm::Outputs(outputs).with(model.stored(&inputs));
        }
        submission.input = submission.model.input(submission.input);
        submission
    }

    fn field(&mut self, name: &str, value: JsonRef<'_>, model: &Model) {
        if let Some(field) = FIELDS.iter().find(|field| field.name == name) {
            return (field.read)(self, field.name, value, model);
        }
        let known = in_words(&FIELDS.map(|field| field.name));
        let detail = format!("is not a field of this request; known are {known}");
        self.mistakes.push(Mistake::at(pointer_to(name), "unknown_field", detail));
    }

    fn data(&mut self, _: &'static str, value: JsonRef<'_>, model: &Model) {
        match model.read_data(value) {
            Ok(read) => {
                self.submission.rows = read.rows;
                self.submission.input = model.stored(&read);
            }
            Err(errors) => self.mistakes.extend(errors.into_iter().map(InputError::into)),
        }
    }

    fn inputs(&mut self, name: &'static str, value: JsonRef<'_>, model: &Model) {
        let at = Pointer::ROOT.member(name);
        let given = match self.raw {
            Some(raw) => binary::read(value, raw, Unknown::Refused, at),
            None => open_inference::json::read(value, at),
        };
        match given.and_then(|given| model.check_tensors(given, at)) {
            Ok(inputs) => self.inputs = Some(inputs),
            Err(errors) => self.mistakes.extend(errors.into_iter().map(InputError::into)),
        }
    }

    fn outputs(&mut self, name: &'static str, value: JsonRef<'_>, model: &Model) {
        let at = Pointer::ROOT.member(name);
        let JsonRef::List(values) = value else {
            let detail = format!("must be a list of names of outputs, not {}", value.kind());
            return self.mistakes.push(Mistake::at(at, "type", detail));
        };
        let wrong =
            values.iter().enumerate().filter(|(_, value)| value.as_str().is_none()).take(MOST_MISTAKES);
        let wrong = wrong.map(|(index, value)| {
            Mistake::at(at.element(index), "type", format!("must be a string, not {}", value.kind()))
        });
        self.mistakes.extend(wrong);
        let names: Vec<String> = values.iter().filter_map(JsonRef::as_str).map(str::to_owned).collect();
        if names.len() < values.len() {
            return;
        }
        match model.check_output_names(&names, at) {
            Ok(()) => self.outputs = names,
            Err(errors) => self.mistakes.extend(errors.into_iter().map(InputError::into)),
        }
    }

    fn priority(&mut self, name: &'static str, value: JsonRef<'_>, _: &Model) {
        let mistake = |code, detail: String| Mistake::at(format!("/{name}"), code, detail);
        let outcome = match value {
            JsonRef::String(word) => word
                .parse()
                .map_err(|UnknownWord { expected, .. }| mistake("unknown_value", one_of(expected))),
            other => {
                let expected = one_of(&Priority::ALL.map(Priority::as_str).join(", "));
                Err(mistake("type", format!("{expected}, not {}", other.kind())))
            }
        };
        match outcome {
            Ok(priority) => self.submission.priority = priority,
            Err(mistake) => self.mistakes.push(mistake),
        }
    }

    fn span(&mut self, name: &str, value: JsonRef<'_>) -> Option<Duration> {
        let seconds = match value {
            JsonRef::Number(number) => number.as_f64(),
            _ if value.large().is_some() => None,
            other => {
                let detail = format!("must be a number, not {}", other.kind());
                self.mistakes.push(Mistake::at(format!("/{name}"), "type", detail));
                return None;
            }
        };
        let seconds = seconds.filter(|seconds| *seconds > 0.0 && *seconds <= f64::from(LONGEST_SECONDS));
        if seconds.is_none() {
            let written =
                value.as_number().map(Number::to_string).or_else(|| value.large().map(str::to_owned));
            let given = written.unwrap_or_default();
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
        Submission::read(&body, &iris()).map_err(|mistakes| mistakes.into_iter().map(place).collect())
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
