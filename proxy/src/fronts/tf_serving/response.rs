//! The outputs of a job in the form of the request.

use std::{
    io::{self, Write},
    sync::Arc,
};

use axum::response::Response;
use tepal_shared::{
    job::{Job, JobResult},
    queue::error::StoreError,
    tensor::{Tensor, View, stored_outputs, tensorflow_json},
};

use super::request::Form;
use crate::{
    error::{ApiError, CallError, Mistake},
    http::answer::{Blocks, as_json, json, paid},
    jobs::models::Served,
    state::App,
};

/// The answer with the outputs of a completed job.
pub(super) async fn answer(
    app: &App,
    form: Form,
    model: &Arc<Served>,
    job: &Job,
) -> Result<Response, ApiError> {
    match &job.result {
        Some(JobResult::Tensors(tensors)) => {
            let tensors: Vec<View<'_>> = tensors.iter().map(Tensor::view).collect();
            let mut text = Vec::new();
            // Writing to memory cannot fail.
            let _ = Text::new(form, &tensors)?.write(&tensors, model, &mut text);
            Ok(json(text))
        }
        Some(JobResult::LargeTensors { bytes }) => {
            let stored = app.results.stored(job.id, *bytes).await?.ok_or(CallError::Removed)?;
            let text = Text::new(form, &stored_outputs::read(&stored).map_err(StoreError::from)?)?;
            let model = Arc::clone(model);
            let write =
                move |tensors: Vec<View<'_>>, blocks: &mut Blocks| text.write(&tensors, &model, blocks);
            Ok(as_json(paid(app.results.about(stored, write).await?)))
        }
        _ => Err(CallError::Removed.into()),
    }
}

/// The text of an answer.
#[derive(Clone, Copy)]
enum Text {
    /// So many rows.
    Rows(usize),
    Columns,
    Classes,
}

impl Text {
    /// The text in this form, if the tensors have it.
    fn new(form: Form, tensors: &[View<'_>]) -> Result<Self, ApiError> {
        match form {
            Form::Rows => {
                let detail =
                    "must be inputs: the outputs of this job have no rows, since their first axes differ";
                let no_rows = || ApiError::Invalid(vec![Mistake::at("/instances", "conflict", detail)]);
                tensorflow_json::rows(tensors).map(Self::Rows).ok_or_else(no_rows)
            }
            Form::Columns => Ok(Self::Columns),
            Form::Classes => Ok(Self::Classes),
        }
    }

    fn write(self, tensors: &[View<'_>], model: &Served, text: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Rows(rows) => {
                text.write_all(br#"{"predictions":"#)?;
                tensorflow_json::write_rows(tensors, rows, text)?;
            }
            Self::Columns => {
                text.write_all(br#"{"outputs":"#)?;
                tensorflow_json::write_columns(tensors, text)?;
            }
            Self::Classes => {
                text.write_all(br#"{"results":"#)?;
                let labels = &model.description.output.labels;
                match tensors.first() {
                    Some(tensor) => tensorflow_json::write_classes(tensor, labels, text)?,
                    None => text.write_all(b"[]")?,
                }
            }
        }
        text.write_all(b"}")
    }
}
