//! The models that jobs may name, with their descriptions.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use serde_json::Number;
use tepal_shared::{
    job::{LARGE_BYTES, ModelName, input},
    json::JsonRef,
    model::Model,
};

use crate::error::{ApiError, Mistake, in_words};

/// The member of a submission that names its model.
pub(crate) const MODEL: &str = "model";
/// The member that pins a version.
pub(crate) const VERSION: &str = "version";
/// The largest version as a number: the largest integer up to which all are exact in any JSON library (RFC 8259, section 6).
pub(crate) const LARGEST_VERSION: f64 = 9_007_199_254_740_991.0;
/// The default model, if no setting names one and there is one of this name.
const USUAL: &str = "iris";
/// Most names of models in an error.
const MOST_NAMED: usize = 20;

/// A model that jobs may name.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) name: ModelName,
    pub(crate) description: Model,
    /// A job of more rows may have a large result.
    pub(crate) small_rows: usize,
    /// Fingerprint of the description.
    pub(crate) fingerprint: String,
    /// The versions that a job may pin; none of a pinned one.
    versions: Vec<Arc<Self>>,
    /// Whether only this version may run the job.
    is_pinned: bool,
}

/// The model and the version that a query names, if any.
#[derive(Debug, Default)]
pub(crate) struct Choice {
    pub(crate) model: Option<String>,
    pub(crate) version: Option<String>,
}

impl Served {
    /// Whether it is the model with this name and description.
    pub(crate) fn is(&self, name: &str, fingerprint: &str) -> bool {
        self.name.as_str() == name && self.fingerprint == fingerprint
    }

    pub(crate) fn new(name: ModelName, description: Model) -> Self {
        let fingerprint = Model::fingerprint(&description.published());
        Self::published(name, description, fingerprint)
    }

    /// The fingerprint of the description as a worker publishes it that calls a model server.
    pub(super) fn on_a_server(&self) -> String {
        Model::fingerprint(&self.description.clone().on_a_server().published())
    }

    /// A model whose published description has this fingerprint.
    pub(crate) fn published(name: ModelName, description: Model, fingerprint: String) -> Self {
        let small_rows = description.rows_within(LARGE_BYTES);
        let versions = description.pinnable_versions().map(|version| Arc::new(Self::pinned(name, version)));
        let versions = versions.collect();
        Self { name, small_rows, description, fingerprint, versions, is_pinned: false }
    }

    fn pinned(name: ModelName, version: &Model) -> Self {
        let small_rows = version.rows_within(LARGE_BYTES);
        let mut description = version.clone();
        description.other_versions.clear();
        let (fingerprint, versions) = (String::new(), Vec::new());
        Self { name, small_rows, description, fingerprint, versions, is_pinned: true }
    }

    /// The versions that a job may pin.
    pub(crate) fn versions(&self) -> Vec<&str> {
        self.versions.iter().map(|version| version.description.version.as_str()).collect()
    }

    /// The input of a job as it is stored, from the stored form without the version.
    pub(crate) fn input(&self, input: Vec<u8>) -> Vec<u8> {
        if self.is_pinned { input::pin(&self.description.version, &input) } else { input }
    }

    /// This model, with only the given version if there is one.
    fn with_version(self: Arc<Self>, version: Option<&str>) -> Result<Arc<Self>, ApiError> {
        let Some(version) = version else { return Ok(self) };
        let found = self.versions.iter().find(|served| served.description.version == version);
        found.cloned().ok_or_else(|| ApiError::VersionNotFound { known: known_versions(&self.versions()) })
    }
}

fn known_versions(versions: &[&str]) -> String {
    if versions.is_empty() { "none".to_owned() } else { in_words(versions) }
}

/// All models at one time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registry {
    models: BTreeMap<&'static str, Arc<Served>>,
    /// The model of submissions that name none.
    default: Option<ModelName>,
}

impl Registry {
    /// These models. `preferred` is the default model, even before it is described.
    pub(crate) fn new(models: impl IntoIterator<Item = Arc<Served>>, preferred: Option<ModelName>) -> Self {
        let models: BTreeMap<_, _> =
            models.into_iter().map(|served| (served.name.as_str(), served)).collect();
        let only = (models.len() == 1).then(|| models.values().next()).flatten();
        let default = preferred.or_else(|| Some(models.get(USUAL).or(only)?.name));
        Self { models, default }
    }

    /// The model of submissions that name none.
    pub(crate) fn default_model(&self) -> Option<ModelName> {
        self.default
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.models.len()
    }

    /// The limits of the models' queues.
    pub(crate) fn queue_limits(&self) -> HashMap<ModelName, u64> {
        let limit = |served: &Arc<Served>| (served.name, served.description.max_queue_depth);
        self.models.values().map(limit).filter(|(_, limit)| *limit > 0).collect()
    }

    /// The models in the order of their names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Served>> {
        self.models.values()
    }

    /// The model with this name.
    pub(crate) fn find(&self, name: &str) -> Result<Arc<Served>, ApiError> {
        self.models.get(name).cloned().ok_or_else(|| self.missing(name))
    }

    /// The model and version that a query names, or the default model.
    pub(crate) fn of_query(&self, choice: &Choice) -> Result<Arc<Served>, ApiError> {
        let named = |detail| Mistake::in_query(MODEL, "missing", detail);
        self.find_or_default(choice.model.as_deref(), named)?.with_version(choice.version.as_deref())
    }

    /// The model and version that a body names, or the default model.
    pub(crate) fn of_body<'a>(&self, body: impl Into<JsonRef<'a>>) -> Result<Arc<Served>, ApiError> {
        self.of_request(body.into(), &Choice::default())
    }

    /// The model and version that a body or the query names, or the default model.
    pub(crate) fn of_request(&self, body: JsonRef<'_>, in_query: &Choice) -> Result<Arc<Served>, ApiError> {
        let model = match body.get(MODEL) {
            None => None,
            Some(JsonRef::String(name)) => Some(name.to_owned()),
            Some(other) => {
                return Err(wrong(
                    MODEL,
                    "type",
                    format!("must be the name of a model, not {}", other.kind()),
                ));
            }
        };
        let version = body.get(VERSION).map(version).transpose()?;
        let model = either(MODEL, model, in_query.model.as_ref())?;
        let version = either(VERSION, version, in_query.version.as_ref())?;
        let unnamed = |detail| Mistake::at(format!("/{MODEL}"), "missing", detail);
        self.find_or_default(model.as_deref(), unnamed)?.with_version(version.as_deref())
    }

    fn find_or_default(
        &self,
        name: Option<&str>,
        unnamed: impl FnOnce(String) -> Mistake,
    ) -> Result<Arc<Served>, ApiError> {
        match (name, self.default) {
            (Some(name), _) => self.find(name),
            (None, Some(default)) => self.find(default.as_str()),
            (None, None) if self.models.is_empty() => Err(ApiError::ModelUnknownYet),
            (None, None) => {
                let detail = format!("is missing; known are {}", self.known());
                Err(ApiError::Invalid(vec![unnamed(detail)]))
            }
        }
    }

    fn missing(&self, name: &str) -> ApiError {
        let is_default = self.default.is_some_and(|default| default.as_str() == name);
        if is_default || self.models.is_empty() {
            return ApiError::ModelUnknownYet;
        }
        ApiError::ModelNotFound { known: self.known() }
    }

    fn known(&self) -> String {
        let names: Vec<_> = self.models.keys().copied().take(MOST_NAMED).collect();
        match self.models.len() - names.len() {
            0 => in_words(&names),
            more => format!("{} and {more} more", names.join(", ")),
        }
    }
}

fn wrong(member: &str, code: &'static str, detail: String) -> ApiError {
    ApiError::Invalid(vec![Mistake::at(format!("/{member}"), code, detail)])
}

/// A version: `1`, `1.0` and `"1"` are the same one.
fn version(value: JsonRef<'_>) -> Result<String, ApiError> {
    let whole = |number: &f64| number.fract() == 0.0 && (0.0..=LARGEST_VERSION).contains(number);
    match (value, value.as_number().and_then(Number::as_f64).filter(whole)) {
        (JsonRef::String(version), _) => Ok(version.to_owned()),
        (_, Some(number)) => Ok((number as u64).to_string()),
        (other, _) => {
            let given = other.as_number().map_or_else(|| other.kind().to_owned(), Number::to_string);
            let detail = format!("must be a version, as a string or a whole number, not {given}");
            Err(wrong(VERSION, "type", detail))
        }
    }
}

/// What the body or the query says. Both may say the same.
fn either(
    member: &str,
    in_body: Option<String>,
    in_query: Option<&String>,
) -> Result<Option<String>, ApiError> {
    match (in_body, in_query) {
        (Some(one), Some(other)) if one != *other => {
            Err(wrong(member, "conflict", "must be omitted or the same as in the query".to_owned()))
        }
        (in_body, in_query) => Ok(in_body.or_else(|| in_query.cloned())),
    }
}

/// The reference model.
#[cfg(test)]
pub(crate) fn iris() -> Arc<Served> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../compose/models");
    let description = Model::load(&folder, "iris").unwrap_or_else(|error| panic!("{error}"));
    Arc::new(Served::new("iris".parse().unwrap_or_else(|error| panic!("{error}")), description))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn models(names: &[&str], preferred: Option<&str>) -> Registry {
        let description = iris().description.clone();
        let served =
            names.iter().map(|name| Arc::new(Served::new(name.parse().unwrap(), description.clone())));
        Registry::new(served, preferred.map(|name| name.parse().unwrap()))
    }

    fn found(models: &Registry, body: Value) -> String {
        match models.of_body(&body) {
            Ok(served) => served.name.to_string(),
            Err(ApiError::Invalid(mistakes)) => format!("{} {}", mistakes[0].code, mistakes[0].detail),
            Err(ApiError::ModelNotFound { known }) => format!("not found; known are {known}"),
            Err(error) => error.code().to_owned(),
        }
    }

    #[test]
    fn the_default_model_is_the_setting_or_the_usual_one_or_the_only_one() {
        let default = |names: &[&str], preferred| found(&models(names, preferred), json!({"data": []}));
        assert_eq!(default(&["a", "iris"], Some("a")), "a");
        assert_eq!(default(&["a", "iris"], None), "iris");
        assert_eq!(default(&["a"], None), "a");
        assert_eq!(default(&["a", "b"], None), "missing is missing; known are a and b");
        assert_eq!(default(&["a", "b"], Some("c")), "model_unknown_yet");
        assert_eq!(default(&[], None), "model_unknown_yet");
    }

    #[test]
    fn a_body_names_its_model() {
        let models = models(&["a", "b", "iris"], None);
        assert_eq!(found(&models, json!({"model": "b"})), "b");
        assert_eq!(found(&models, json!({"model": "c"})), "not found; known are a, b and iris");
        assert_eq!(found(&models, json!({"model": 5})), "type must be the name of a model, not a number");
        assert_eq!(found(&models, json!([])), "iris");
    }

    #[test]
    fn an_error_names_a_bounded_number_of_models() {
        let names: Vec<_> = (10..99).map(|number| format!("m{number}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let error = found(&models(&names, None), json!({"model": "x"}));
        assert!(error.ends_with("m29 and 69 more"), "{error}");
    }
}
