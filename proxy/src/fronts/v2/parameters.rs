//! The parameters of a request and of its outputs, in JSON or in a message.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Number;
use tepal_proto::open_inference::{InferParameter, infer_parameter::ParameterChoice};
use tepal_shared::{
    job::Priority,
    json::{JsonRef, ObjectRef},
    tensor::pointer::Pointer,
};

use crate::{error::Mistake, jobs::submission::LONGEST_SECONDS};

const PRIORITY: &str = "priority";
const TIMEOUT: &str = "timeout";
const CLASSIFICATION: &str = "classification";
/// What the job of a request cannot do, by the parameter that asks for it.
const REFUSED: [(&str, &str); 2] = [
    ("sequence_id", "is not supported: each request is a job of its own, and any worker may run it"),
    ("shared_memory_region", "is not supported; the answer contains the elements"),
];

/// The value of a parameter.
pub(super) enum Value<'a> {
    Flag(bool),
    Number(Number),
    Text(&'a str),
    /// Another kind of JSON.
    Other(&'static str),
}

/// Parameters by their names.
pub(super) trait Parameters {
    /// The parameter, if it is there.
    fn value(&self, name: &str) -> Option<Value<'_>>;
}

impl Parameters for ObjectRef<'_> {
    fn value(&self, name: &str) -> Option<Value<'_>> {
        match self.get(name)? {
            // It counts as absent.
            JsonRef::Null => None,
            JsonRef::Bool(flag) => Some(Value::Flag(flag)),
            JsonRef::Number(number) => Some(Value::Number(number.clone())),
            JsonRef::String(text) => Some(Value::Text(text)),
            other => Some(Value::Other(other.kind())),
        }
    }
}

impl Parameters for BTreeMap<String, InferParameter> {
    fn value(&self, name: &str) -> Option<Value<'_>> {
        Some(match self.get(name)?.parameter_choice.as_ref()? {
            ParameterChoice::BoolParam(flag) => Value::Flag(*flag),
            ParameterChoice::Int64Param(number) => Value::Number((*number).into()),
            ParameterChoice::Uint64Param(number) => Value::Number((*number).into()),
            ParameterChoice::DoubleParam(number) => {
                Number::from_f64(*number).map_or(Value::Other("an infinite number or none"), Value::Number)
            }
            ParameterChoice::StringParam(text) => Value::Text(text),
        })
    }
}

impl Value<'_> {
    /// As a message names it.
    fn shown(&self) -> String {
        match self {
            Self::Flag(_) => "a boolean".to_owned(),
            Self::Number(number) => number.to_string(),
            Self::Text(_) => "a string".to_owned(),
            Self::Other(kind) => (*kind).to_owned(),
        }
    }

    /// Whether it asks for something. Zero, an empty text and `false` ask for nothing.
    fn asks(&self) -> bool {
        match self {
            Self::Flag(flag) => *flag,
            Self::Number(number) => number.as_f64() != Some(0.0),
            Self::Text(text) => !text.is_empty(),
            Self::Other(_) => true,
        }
    }
}

/// Reads the parameters at this place of the request.
pub(super) struct Reader<'a, P> {
    pub(super) parameters: &'a P,
    pub(super) at: Pointer<'a>,
    pub(super) mistakes: &'a mut Vec<Mistake>,
}

impl<P: Parameters> Reader<'_, P> {
    /// The priority of a request, and how long its client waits.
    pub(super) fn limits(&mut self) -> (Priority, Option<Duration>) {
        self.refuse();
        let priority = self.whole(PRIORITY).map_or(Priority::Normal, mapped);
        let timeout = self.whole(TIMEOUT).filter(|micros| *micros > 0);
        // Rounded up to whole milliseconds, because 0 means "no limit" in the store.
        let longest = Duration::from_secs(LONGEST_SECONDS.into());
        let timeout = timeout.map(|micros| Duration::from_millis(micros.div_ceil(1000)).min(longest));
        (priority, timeout)
    }

    /// Checks the parameters of an output.
    pub(super) fn check_output(&mut self) {
        self.refuse();
        if self.whole(CLASSIFICATION).is_some_and(|classes| classes > 0) {
            let detail = "is not supported; the answer contains the output itself";
            self.wrong(CLASSIFICATION, "unknown_field", detail);
        }
    }

    /// True or false; false if it is absent. `None` after a mistake.
    pub(super) fn flag(&mut self, name: &str) -> Option<bool> {
        match self.parameters.value(name) {
            None => Some(false),
            Some(Value::Flag(flag)) => Some(flag),
            // Unlike a message about numbers, this one names the kind.
            Some(Value::Number(_)) => {
                self.wrong(name, "type", "must be true or false, not a number");
                None
            }
            Some(other) => {
                self.wrong(name, "type", format!("must be true or false, not {}", other.shown()));
                None
            }
        }
    }

    /// A whole number; in JSON, 5.0 is one.
    fn whole(&mut self, name: &str) -> Option<u64> {
        let value = self.parameters.value(name)?;
        let whole = match &value {
            Value::Number(number) => number.as_u64().or_else(|| whole_float(number)),
            _ => None,
        };
        if whole.is_none() {
            self.wrong(name, "type", format!("must be a whole number, not {}", value.shown()));
        }
        whole
    }

    /// Reports what no job can do.
    fn refuse(&mut self) {
        for (name, why) in REFUSED {
            if self.parameters.value(name).is_some_and(|value| value.asks()) {
                self.wrong(name, "unknown_field", why);
            }
        }
    }

    fn wrong(&mut self, name: &str, code: &'static str, detail: impl Into<String>) {
        self.mistakes.push(Mistake::at(self.at.member(name), code, detail.into()));
    }
}

/// A float without a fraction; the largest integer for all that are larger.
fn whole_float(number: &Number) -> Option<u64> {
    number.as_f64().filter(|number| number.fract() == 0.0 && *number >= 0.0).map(|number| number as u64)
}

/// 0 is the default and 1 the highest; the larger, the lower.
fn mapped(priority: u64) -> Priority {
    match priority {
        1 => Priority::High,
        0 | 2 => Priority::Normal,
        _ => Priority::Low,
    }
}
