//! The model of a path, its version or label, and what shall be done with it: `/v1/models/iris/versions/1:predict`.

use std::{convert::Infallible, sync::Arc};

use axum::{
    extract::{FromRequestParts, MatchedPath, RawPathParams},
    http::{HeaderValue, header::ALLOW, request::Parts},
    response::{IntoResponse, Response},
};
use tepal_shared::model::ServerVersion;

use crate::{
    edge::access::Caller,
    error::{ApiError, CallError},
    jobs::models::{Choice, Registry, Served},
};

/// What the path names.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) choice: Choice,
    pub(super) label: Option<String>,
    /// What follows the last colon.
    verb: Option<String>,
}

/// What a request does with a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Predict,
    Classify,
    Regress,
    Explain,
}

impl Verb {
    const ALL: [(&str, Self); 4] = [
        ("predict", Self::Predict),
        ("classify", Self::Classify),
        ("regress", Self::Regress),
        ("explain", Self::Explain),
    ];

    /// The verb in any case, as in the regular expressions of `http_rest_api_util.cc`.
    fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(word)).map(|(_, verb)| verb)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Target {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        // A path that cannot be decoded names no model.
        let found = RawPathParams::from_request_parts(parts, state).await.ok();
        let route = parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
        Ok(Self::of(route, found.iter().flatten()))
    }
}

impl Target {
    fn of<'a>(route: &str, parameters: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let choice = Choice { model: Some(String::new()), version: None };
        let mut target = Self { choice, label: None, verb: None };
        for (parameter, mut value) in parameters {
            // Only the last segment has a verb. No name, version or label contains a colon.
            if route.ends_with(&format!("{{{parameter}}}"))
                && let Some((before, verb)) = value.rsplit_once(':')
            {
                (value, target.verb) = (before, Some(verb.to_owned()));
            }
            match parameter {
                "version" => target.choice.version = Some(number(value)),
                "label" => target.label = Some(value.to_owned()),
                _ => target.choice.model = Some(value.to_owned()),
            }
        }
        target
    }

    /// What a POST does.
    pub(super) fn verb(&self) -> Result<Verb, WrongPath> {
        match &self.verb {
            Some(word) => Verb::of(word).ok_or(WrongPath::Unknown),
            None => Err(WrongPath::OnlyFor("GET,HEAD")),
        }
    }

    /// Checks that the path of a GET has no verb.
    pub(super) fn check_read(&self) -> Result<(), WrongPath> {
        match self.verb.as_deref().map(Verb::of) {
            None => Ok(()),
            Some(Some(_)) => Err(WrongPath::OnlyFor("POST")),
            Some(None) => Err(WrongPath::Unknown),
        }
    }

    /// Why a method is refused that no path of a model has. The router does not know which methods a verb allows.
    pub(super) fn refuse_method(&self) -> WrongPath {
        self.verb().map_or_else(|wrong| wrong, |_| WrongPath::OnlyFor("POST"))
    }

    /// The model, if the caller may use it.
    pub(super) fn model(&self, registry: &Registry, caller: &Caller) -> Result<Arc<Served>, ApiError> {
        let model = registry.of_query(&self.choice)?;
        caller.check_model(model.name.as_str())?;
        self.check_label(&model)?;
        Ok(model)
    }

    /// The only label that a model can have is that by which its server chooses the version.
    pub(super) fn check_label(&self, model: &Served) -> Result<(), ApiError> {
        let Some(label) = &self.label else { return Ok(()) };
        match &model.description.server_version {
            ServerVersion::Label(known) if known == label => Ok(()),
            ServerVersion::Label(known) => Err(CallError::NoSuchLabel { known: Some(known.clone()) }.into()),
            _ => Err(CallError::NoSuchLabel { known: None }.into()),
        }
    }
}

/// The number without leading zeros; other text as it is.
fn number(text: &str) -> String {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let short = text.trim_start_matches('0');
    match (is_number, short) {
        (false, _) => text.to_owned(),
        (true, "") => "0".to_owned(),
        (true, short) => short.to_owned(),
    }
}

/// Why nothing can be done with what a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WrongPath {
    /// There is no such verb.
    Unknown,
    /// The path is for these methods.
    OnlyFor(&'static str),
}

impl IntoResponse for WrongPath {
    fn into_response(self) -> Response {
        let Self::OnlyFor(methods) = self else { return ApiError::NoSuchPath.into_response() };
        let mut response = ApiError::MethodNotAllowed.into_response();
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(parameters: &[(&str, &str)]) -> (Option<String>, Option<String>, Option<String>, Option<Verb>) {
        let route = parameters.last().map_or_else(String::new, |(name, _)| format!("/{{{name}}}"));
        let target = Target::of(&route, parameters.iter().copied());
        let verb = target.verb().ok();
        (target.choice.model, target.choice.version, target.label, verb)
    }

    #[test]
    fn the_last_segment_ends_with_the_verb() {
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(of(&[("name", "iris:predict")]), (text("iris"), None, None, Some(Verb::Predict)));
        assert_eq!(of(&[("name", "a:b:CLASSIFY")]), (text("a:b"), None, None, Some(Verb::Classify)));
        let version = of(&[("name", "iris"), ("version", "007:Regress")]);
        assert_eq!(version, (text("iris"), text("7"), None, Some(Verb::Regress)));
        let label = of(&[("name", "iris"), ("label", "stable:explain")]);
        assert_eq!(label, (text("iris"), None, text("stable"), Some(Verb::Explain)));
        assert_eq!(of(&[]), (text(""), None, None, None));
        assert_eq!(of(&[("name", "iris:run")]).3, None);
        let earlier = of(&[("name", "iris:predict"), ("version", "1")]);
        assert_eq!(earlier, (text("iris:predict"), text("1"), None, None));
        let metadata = Target::of("/{name}/metadata", [("name", "iris:predict")].into_iter());
        assert_eq!((metadata.choice.model, metadata.verb), (text("iris:predict"), None));
    }

    #[test]
    fn a_version_is_a_number() {
        assert_eq!(["1", "01", "000", "", "x0", "0x"].map(number), ["1", "1", "0", "", "x0", "0x"]);
    }
}
