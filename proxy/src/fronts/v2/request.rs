//! The body of an inference: JSON, or JSON and raw tensors. Servers of the protocol ignore members and parameters that they do not
//! know, so unmodified clients send some.

use std::{sync::Arc, time::Duration};

use tepal_shared::{
    job::Priority,
    json::{JsonRef, ObjectRef},
    model::{InputError, JobInput},
    tensor::{
        open_inference::binary::{self, Unknown},
        pointer::Pointer,
    },
};

use super::parameters::{Parameters as _, Reader as Parameter};
use crate::{
    error::{MOST_MISTAKES, Mistake},
    jobs::{models::Served, submission::Submission},
};

const ID: &str = "id";
const INPUTS: &str = "inputs";
const OUTPUTS: &str = "outputs";
const NAME: &str = "name";
const PARAMETERS: &str = "parameters";
const BINARY_DATA: &str = "binary_data";
const BINARY_DATA_OUTPUT: &str = "binary_data_output";

/// Characters of an id, which the answer repeats.
pub(super) const LONGEST_ID: usize = 1024;

/// A valid request.
#[derive(Debug)]
pub(crate) struct InferRequest {
    /// The client's name of the request, which the answer repeats. It need not be unique.
    pub(super) id: Option<String>,
    pub(super) tensors: JobInput,
    /// The outputs that the answer contains; all of the model if there is none.
    pub(super) outputs: Vec<String>,
    pub(super) encoding: Encoding,
    pub(super) priority: Priority,
    /// How long the client waits.
    pub(super) timeout: Option<Duration>,
}

/// A request whose job can be submitted.
pub(super) struct Parsed {
    pub(super) submission: Submission,
    pub(super) id: Option<String>,
    pub(super) encoding: Encoding,
}

/// Which outputs the client wants as raw bytes.
#[derive(Debug, Default)]
pub(super) struct Encoding {
    /// Those that say nothing of their own.
    is_raw: bool,
    /// Those that do.
    own: Vec<(String, bool)>,
}

impl Encoding {
    /// Whether the client wants raw bytes of this output.
    pub(super) fn is_raw(&self, output: &str) -> bool {
        self.own.iter().find(|(name, _)| name == output).map_or(self.is_raw, |(_, is_raw)| *is_raw)
    }
}

impl InferRequest {
    /// Reads the JSON of a request, and the raw bytes after it.
    pub(crate) fn read(body: JsonRef<'_>, raw: &[u8], model: &Arc<Served>) -> Result<Self, Vec<Mistake>> {
        let JsonRef::Object(members) = body else {
            return Err(vec![Mistake::at("", "type", format!("must be an object, not {}", body.kind()))]);
        };
        let mut reader = Reader { model, mistakes: Vec::new() };
        let request = reader.read(members, raw);
        reader.mistakes.truncate(MOST_MISTAKES);
        match request {
            Some(request) if reader.mistakes.is_empty() => Ok(request),
            _ => Err(reader.mistakes),
        }
    }

    /// The job of the request.
    pub(super) fn parsed(self, model: &Arc<Served>) -> Parsed {
        let Self { id, tensors, outputs, encoding, priority, timeout } = self;
        // The timeout bounds the time in the queue and the run together: the call cancels its job then. The limits of the job hold
        // even if this proxy dies before.
        let submission = Submission {
            priority,
            max_queue: timeout,
            timeout,
            ..Submission::of_tensors(Arc::clone(model), &tensors, outputs)
        };
        Parsed { submission, id, encoding }
    }
}

/// Checks the length of an id.
pub(super) fn check_id(id: &str) -> Result<(), Mistake> {
    if id.chars().nth(LONGEST_ID).is_none() {
        return Ok(());
    }
    let detail = format!("must have at most {LONGEST_ID} characters");
    Err(Mistake::at(Pointer::ROOT.member(ID), "length", detail))
}

struct Reader<'a> {
    model: &'a Served,
    mistakes: Vec<Mistake>,
}

/// A member that is not absent. `null` counts as absent.
fn member<'a>(members: ObjectRef<'a>, name: &str) -> Option<JsonRef<'a>> {
    members.get(name).filter(|value| !matches!(value, JsonRef::Null))
}

impl Reader<'_> {
    /// `None` only after a mistake.
    fn read(&mut self, members: ObjectRef<'_>, raw: &[u8]) -> Option<InferRequest> {
        let id = member(members, ID).and_then(|id| self.id(id));
        let (mut priority, mut timeout, mut encoding) = Default::default();
        if let Some(parameters) = self.parameters(members, Pointer::ROOT) {
            let at = Pointer::ROOT.member(PARAMETERS);
            let mut reader = Parameter { parameters: &parameters, at, mistakes: &mut self.mistakes };
            (priority, timeout) = reader.limits();
            encoding = Encoding { is_raw: reader.flag(BINARY_DATA_OUTPUT)?, own: Vec::new() };
        }
        let outputs = match member(members, OUTPUTS) {
            Some(list) => self.outputs(list, &mut encoding),
            None => Vec::new(),
        };
        let tensors = self.inputs(members, raw)?;
        Some(InferRequest { id, tensors, outputs, encoding, priority, timeout })
    }

    fn wrong(&mut self, at: Pointer<'_>, code: &'static str, detail: impl Into<String>) {
        self.mistakes.push(Mistake::at(at, code, detail.into()));
    }

    fn id(&mut self, value: JsonRef<'_>) -> Option<String> {
        match value {
            JsonRef::String(id) => {
                self.mistakes.extend(check_id(id).err());
                Some(id.to_owned())
            }
            other => {
                let detail = format!("must be a string, not {}", other.kind());
                self.wrong(Pointer::ROOT.member(ID), "type", detail);
                None
            }
        }
    }

    fn parameters<'v>(&mut self, members: ObjectRef<'v>, of: Pointer<'_>) -> Option<ObjectRef<'v>> {
        match member(members, PARAMETERS)? {
            JsonRef::Object(parameters) => Some(parameters),
            other => {
                let detail = format!("must be an object, not {}", other.kind());
                self.wrong(of.member(PARAMETERS), "type", detail);
                None
            }
        }
    }

    fn inputs(&mut self, members: ObjectRef<'_>, raw: &[u8]) -> Option<JobInput> {
        let at = Pointer::ROOT.member(INPUTS);
        let Some(list) = member(members, INPUTS) else {
            self.wrong(at, "missing", "is missing");
            return None;
        };
        let given = binary::read(list, raw, Unknown::Ignored, at);
        match given.and_then(|given| self.model.description.check_tensors(given, at)) {
            Ok(tensors) => Some(tensors),
            Err(errors) => {
                self.mistakes.extend(errors.into_iter().map(InputError::into));
                None
            }
        }
    }

    fn outputs(&mut self, list: JsonRef<'_>, encoding: &mut Encoding) -> Vec<String> {
        let at = Pointer::ROOT.member(OUTPUTS);
        let JsonRef::List(entries) = list else {
            self.wrong(at, "type", format!("must be a list of objects with {NAME}, not {}", list.kind()));
            return Vec::new();
        };
        let mut names = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            if self.mistakes.len() >= MOST_MISTAKES {
                break;
            }
            names.extend(self.output(entry, at.element(index), encoding));
        }
        if names.len() == entries.len()
            && let Err(errors) = self.model.description.check_output_names(&names, at)
        {
            self.mistakes.extend(errors.into_iter().map(InputError::into));
        }
        names
    }

    /// The name of an output.
    fn output(&mut self, entry: JsonRef<'_>, at: Pointer<'_>, encoding: &mut Encoding) -> Option<String> {
        let JsonRef::Object(members) = entry else {
            self.wrong(at, "type", format!("must be an object with {NAME}, not {}", entry.kind()));
            return None;
        };
        let Some(name) = member(members, NAME).and_then(JsonRef::as_str) else {
            self.wrong(at.member(NAME), "type", "must be the name of an output, a string");
            return None;
        };
        if let Some(parameters) = self.parameters(members, at) {
            let at = at.member(PARAMETERS);
            let mut reader = Parameter { parameters: &parameters, at, mistakes: &mut self.mistakes };
            reader.check_output();
            if parameters.value(BINARY_DATA).is_some() {
                let is_raw = reader.flag(BINARY_DATA)?;
                encoding.own.push((name.to_owned(), is_raw));
            }
        }
        Some(name.to_owned())
    }
}
