//! The body of `POST /predict` in each of its forms: JSON, the binary form of the Open Inference Protocol, or the content of the only
//! input.

use std::sync::Arc;

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue},
};
use tepal_shared::{json::JsonRef, tensor::open_inference::binary};

use super::extract;
use crate::{
    error::{ApiError, Mistake},
    http::{
        bodies::Bodies,
        budget::{Meter, Share},
        headers::{self, RawContent},
        json,
    },
    jobs::{models::Served, refused::Refused, submission::Submission},
};

/// The form of a body.
enum Form {
    Json,
    /// With the length of the JSON.
    Binary(HeaderValue),
    /// Of this content type, for this model.
    Raw(RawContent, String, Arc<Served>),
}

/// Reads the body. Returns the submission and the memory that the body holds. `model_of`: the model that a body in JSON names, if any, or
/// that of the request otherwise.
pub(super) async fn read(
    headers: &HeaderMap,
    body: Body,
    bodies: &Bodies,
    model_of: impl Fn(Option<JsonRef<'_>>) -> Result<Arc<Served>, Refused> + Send + 'static,
) -> Result<(Submission, Option<Share>), Refused> {
    let form = Form::of(headers, &model_of)?;
    let (submission, share) =
        bodies.read(body, move |bytes, meter| Ok(form.read(bytes, meter, model_of))).await?;
    Ok((submission?, share))
}

impl Form {
    /// The header of the binary form decides, whatever the body's media type: clients of that form send another one, or none.
    fn of(
        headers: &HeaderMap,
        model_of: impl Fn(Option<JsonRef<'_>>) -> Result<Arc<Served>, Refused>,
    ) -> Result<Self, Refused> {
        if let Some(length) = headers::once(headers, &extract::JSON_LENGTH, binary::HEADER)? {
            let is_plain = !headers::is_compressed(headers);
            return if is_plain {
                Ok(Self::Binary(length.clone()))
            } else {
                Err(ApiError::NotDeclaredJson.into())
            };
        }
        if headers::is_declared(headers, &["application/json"])? {
            return Ok(Self::Json);
        }
        let content_type = headers::content_type(headers)?.ok_or(ApiError::NotDeclaredJson)?;
        let content = headers::raw_content(content_type);
        let model = match (model_of(None), content) {
            // An opaque model takes content of any type.
            (Ok(model), None) if !model.description.is_opaque => {
                return Err(ApiError::NotDeclaredJson.into());
            }
            (Ok(model), _) => model,
            (Err(_), None) => return Err(ApiError::NotDeclaredJson.into()),
            (Err(refused), Some(_)) => return Err(refused),
        };
        if !model.description.takes_raw() {
            return Err(Refused::of(model.name, ApiError::NoRawInput));
        }
        // What an opaque model takes is passed on unread.
        let content = content.filter(|_| !model.description.is_opaque).unwrap_or(RawContent::Bytes);
        Ok(Self::Raw(content, content_type.to_owned(), model))
    }

    fn read(
        self,
        body: &[u8],
        meter: &mut Meter,
        model_of: impl Fn(Option<JsonRef<'_>>) -> Result<Arc<Served>, Refused>,
    ) -> Result<Submission, Refused> {
        match self {
            Self::Json => {
                let body = json::parse(body, meter)?;
                let model = model_of(Some(JsonRef::from(&body)))?;
                Submission::read(&body, &model).map_err(|wrong| invalid(&model, wrong))
            }
            Self::Binary(length) => read_binary(&length, body, meter, model_of),
            Self::Raw(content, content_type, model) => {
                let name = model.name;
                read_raw((content, &content_type), body, meter, model)
                    .map_err(|error| Refused::of(name, error))
            }
        }
    }
}

/// A body in binary form, whose JSON has this length.
pub(crate) fn read_binary(
    length: &HeaderValue,
    body: &[u8],
    meter: &mut Meter,
    model_of: impl Fn(Option<JsonRef<'_>>) -> Result<Arc<Served>, Refused>,
) -> Result<Submission, Refused> {
    let (value, raw) = extract::json_and_raw(length, body, meter)?;
    let value = JsonRef::from(&value);
    let model = model_of(Some(value))?;
    Submission::read_binary(value, raw, &model).map_err(|wrong| invalid(&model, wrong))
}

fn invalid(model: &Served, mistakes: Vec<Mistake>) -> Refused {
    Refused::of(model.name, ApiError::Invalid(mistakes))
}

fn read_raw(
    (content, content_type): (RawContent, &str),
    body: &[u8],
    meter: &mut Meter,
    model: Arc<Served>,
) -> Result<Submission, ApiError> {
    if content == RawContent::Text
        && let Err(error) = std::str::from_utf8(body)
    {
        let detail = format!(
            "must be UTF-8, but byte {} is not; send other bytes as application/octet-stream",
            error.valid_up_to()
        );
        return Err(ApiError::Invalid(vec![Mistake::at("", "invalid_utf8", detail)]));
    }
    extract::pay_for_tensors(meter, body)?;
    Submission::of_raw(content_type, body, model).ok_or(ApiError::NoRawInput)
}
