//! The body of a prediction or classification. As in TensorFlow Serving, members with other names are ignored.

use std::sync::Arc;

use tepal_shared::{
    json::{JsonRef, ObjectRef},
    model::{InputError, JobInput, Model},
    tensor::pointer::Pointer,
};

use super::target::Verb;
use crate::{
    error::Mistake,
    jobs::{models::Served, submission::Submission},
};

const SIGNATURE: &str = "signature_name";
const INSTANCES: &str = "instances";
const INPUTS: &str = "inputs";
const EXAMPLES: &str = "examples";
const CONTEXT: &str = "context";

/// The form of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A list of rows, as the request has.
    Rows,
    /// Whole tensors, as the request has.
    Columns,
    /// The classes of each example.
    Classes,
}

/// A valid request.
#[derive(Debug)]
pub(crate) struct PredictRequest {
    pub(crate) submission: Submission,
    pub(crate) form: Form,
}

impl PredictRequest {
    /// Reads the body of a prediction or, if the verb says so, of a classification.
    pub(crate) fn read(body: JsonRef<'_>, verb: Verb, model: &Arc<Served>) -> Result<Self, Vec<Mistake>> {
        let JsonRef::Object(members) = body else {
            return Err(vec![wrong(
                Pointer::ROOT,
                "type",
                format!("must be an object, not {}", body.kind()),
            )]);
        };
        let description = &model.description;
        check_signature(members, description)?;
        let (form, read) = match verb {
            Verb::Classify => (Form::Classes, examples(members, description)?),
            _ => tensors(members, description)?,
        };
        let tensors = read.map_err(mistakes)?;
        // Classes are those of the first output.
        let outputs = match form {
            Form::Classes => vec![description.output.name.clone()],
            Form::Rows | Form::Columns => Vec::new(),
        };
        Ok(Self { submission: Submission::of_tensors(Arc::clone(model), &tensors, outputs), form })
    }
}

/// Tensors, or what is wrong with them.
type Read = Result<JobInput, Vec<InputError>>;

fn wrong(at: Pointer<'_>, code: &'static str, detail: impl Into<String>) -> Mistake {
    Mistake::at(at, code, detail.into())
}

fn mistakes(errors: Vec<InputError>) -> Vec<Mistake> {
    errors.into_iter().map(InputError::into).collect()
}

/// A model has one signature.
fn check_signature(members: ObjectRef<'_>, model: &Model) -> Result<(), Vec<Mistake>> {
    let at = Pointer::ROOT.member(SIGNATURE);
    match members.get(SIGNATURE) {
        None | Some(JsonRef::String("")) => Ok(()),
        Some(JsonRef::String(name)) if name == model.signature => Ok(()),
        Some(JsonRef::String(_)) => {
            let detail = format!("is not a signature of the model; its signature is `{}`", model.signature);
            Err(vec![wrong(at, "unknown_value", detail)])
        }
        Some(other) => Err(vec![wrong(at, "type", format!("must be a string, not {}", other.kind()))]),
    }
}

/// The tensors of a prediction, and the form of its answer.
fn tensors(members: ObjectRef<'_>, model: &Model) -> Result<(Form, Read), Vec<Mistake>> {
    let at = |name| Pointer::ROOT.member(name);
    match (members.get(INSTANCES), members.get(INPUTS)) {
        (Some(rows), None) => {
            let read = model.read_instances(rows, at(INSTANCES));
            if read.is_ok() {
                check_rows(model)?;
            }
            Ok((Form::Rows, read))
        }
        (None, Some(columns)) => Ok((Form::Columns, model.read_columns(columns, at(INPUTS)))),
        (None, None) => Err(vec![wrong(at(INSTANCES), "missing", format!("is missing, and so is {INPUTS}"))]),
        (Some(_), Some(_)) => {
            let detail = format!("must be omitted, since the request has {INSTANCES}");
            Err(vec![wrong(at(INPUTS), "conflict", detail)])
        }
    }
}

/// Checks that the outputs can be divided into rows: the first axes of all have the same length.
fn check_rows(model: &Model) -> Result<(), Vec<Mistake>> {
    if model.has_batch_axis() {
        return Ok(());
    }
    let first = |shape: &tepal_shared::model::Shape| shape.axes().first().copied();
    let mut lengths = model.outputs().map(|output| first(&output.shape));
    let has_rows = match lengths.next().flatten() {
        // The answer shows the lengths of variable axes.
        Some(one) => lengths.all(|other| {
            other.is_some_and(|other| one == other || one.length().is_none() || other.length().is_none())
        }),
        None => false,
    };
    let detail = format!("must be {INPUTS}, since the outputs of the model have no rows");
    if has_rows { Ok(()) } else { Err(vec![wrong(Pointer::ROOT.member(INSTANCES), "conflict", detail)]) }
}

/// The tensors of a classification.
fn examples(members: ObjectRef<'_>, model: &Model) -> Result<Read, Vec<Mistake>> {
    let (at, context_at) = (Pointer::ROOT.member(EXAMPLES), Pointer::ROOT.member(CONTEXT));
    if model.output.labels.is_empty() {
        let detail = "cannot be classified, since the description of the model has no labels; use :predict";
        return Err(vec![wrong(at, "conflict", detail)]);
    }
    let context = match members.get(CONTEXT) {
        None => None,
        Some(JsonRef::Object(context)) => Some((context, context_at)),
        Some(other) => {
            return Err(vec![wrong(context_at, "type", format!("must be an object, not {}", other.kind()))]);
        }
    };
    match members.get(EXAMPLES) {
        Some(examples) => Ok(model.read_examples(examples, at, context)),
        None => Err(vec![wrong(at, "missing", "is missing")]),
    }
}
