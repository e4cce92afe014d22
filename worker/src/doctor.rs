//! `tepal-worker doctor`: checks what this worker needs. Changes nothing, and costs one call of each model.

use std::time::Duration;

use serde_json::Value;
use tepal_shared::{
    job::ModelName,
    model::{Axis, Model, Shape, repository::Repository},
    process::{
        doctor::{Finding, Report},
        telemetry,
    },
    queue::doctor::{Expected, Service, examine_redis},
    tensor::DataType,
};

use crate::{
    backend::{
        self, Backend, BackendError, ModelCall, OpenError, ServedInterface,
        settings::{BackendKind, ModelServer},
    },
    lanes::{self, Description},
    models::ModelFailure,
    settings::Config,
};

const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Checks Redis and the models.
pub async fn examine(config: &Config) -> Report {
    let common = &config.common;
    let is_cluster = common.redis.is_cluster();
    let expected =
        Expected { service: Service::Worker, partitions: common.policy.partitions, replicas: 0, is_cluster };
    let mut report = examine_redis(&common.redis, &common.keys, expected).await;
    report.findings.extend(examine_models(config).await);
    report
}

async fn examine_models(config: &Config) -> Vec<Finding> {
    let found = match config.models.find(&config.common) {
        Ok(found) => found,
        Err(error) => {
            return vec![Finding::wrong(
                "models",
                telemetry::chain(&error),
                "set MODELS_DIR to the folder of the models",
            )];
        }
    };
    let missing = config.models.missing(&found).map(|name| ModelFailure::Missing(name).to_string());
    let mut findings: Vec<_> =
        missing.map(|what| Finding::wrong("models", what, "change MODELS, or add the folder")).collect();
    let default = config.common.model_name;
    let (of_default, others): (Vec<_>, Vec<_>) = found.into_keys().partition(|name| *name == default);
    for name in of_default {
        findings.extend(examine_named(config, name).await);
    }
    for name in others {
        let of_model =
            |finding: Finding| Finding { subject: format!("{} of {name}", finding.subject), ..finding };
        findings.extend(examine_named(config, name).await.into_iter().map(of_model));
    }
    findings
}

async fn examine_named(config: &Config, name: ModelName) -> Vec<Finding> {
    let (description, broken_versions) = match described(config, name).await {
        Ok(described) => described,
        Err(finding) => return vec![finding],
    };
    let mut findings = examine_model(config, &description).await;
    let fix = "copy it again, or remove its folder";
    findings.extend(broken_versions.iter().map(|reason| Finding::wrong("model version", reason, fix)));
    findings
}

/// The description in the folder, or that of the server. Does not wait for the server.
async fn described(config: &Config, name: ModelName) -> Result<(Model, Vec<String>), Finding> {
    let wrong = |error: &dyn std::error::Error| {
        Finding::wrong("model", telemetry::chain(error), "see docs/models.md")
    };
    let asked = match lanes::describe(config, name).map_err(|error| wrong(&error))? {
        Description::Folder(model) => return Ok((model.description, model.broken_versions)),
        Description::Server(undescribed) => undescribed,
    };
    let unusable = |error: OpenError| Finding::wrong("model", telemetry::chain(&error), error.fix());
    let kind = backend::kind_named(&config.backend, asked.backend.as_deref()).map_err(unusable)?;
    let server = ServedInterface::open(&config.backend, name.as_str(), &asked).map_err(unusable)?;
    let interface = server.ask().await.map_err(|error| unserved(config, kind, &error))?;
    let repository = Repository::new(&config.common.models_dir);
    let model = repository.load_served(name.as_str(), &interface).map_err(|error| wrong(&error))?;
    Ok((model, Vec::new()))
}

/// The model server does not serve the model.
fn unserved(config: &Config, kind: BackendKind, error: &BackendError) -> Finding {
    let Some(ModelServer { prefix, host, port, .. }) = config.backend.server(kind) else {
        return Finding::wrong("model", &error.message, "see docs/models.md");
    };
    let fix = format!(
        "start the model server with this model, or set {prefix}_HOST, {prefix}_GRPC_PORT and MODEL_NAME"
    );
    Finding::wrong("model", format!("{host}:{port}: {}", error.message), fix)
}

async fn examine_model(config: &Config, model: &Model) -> Vec<Finding> {
    let opened = backend::kind(&config.backend, model)
        .and_then(|kind| Ok((kind, backend::open(&config.backend, model)?)));
    let (kind, backend) = match opened {
        Ok(opened) => opened,
        Err(error) => return vec![Finding::wrong("model", telemetry::chain(&error), error.fix())],
    };
    let mut findings: Vec<_> =
        backend.library().map(|library| Finding::ok("library", library)).into_iter().collect();
    match backend.probe().await {
        Ok(metadata) => findings.extend([
            Finding::ok("model", format!("`{}` is available ({})", model.name, backend.name())),
            description(model, kind, &metadata),
            sample(model, backend.as_ref()).await,
        ]),
        Err(error) if kind.is_server() => findings.push(unserved(config, kind, &error)),
        Err(error) => {
            let fix = "see docs/models.md";
            findings.push(Finding::wrong("model", format!("{}: {}", model.name, error.message), fix));
        }
    }
    findings
}

/// Whether `model.toml` and the backend agree.
fn description(model: &Model, kind: BackendKind, metadata: &Value) -> Finding {
    const SUBJECT: &str = "description";
    if model.is_opaque {
        return Finding::ok(SUBJECT, "model.toml names an HTTP endpoint, which takes and returns any value");
    }
    let differences = differences(model, metadata);
    if !differences.is_empty() {
        let fix = "change model.toml, or serve the model that it describes";
        return Finding::wrong(SUBJECT, differences.join("; "), fix);
    }
    let version = metadata["model_spec"]["version"].as_str().unwrap_or_default();
    // A file knows no version, and some servers name none.
    if !kind.is_server() || version.is_empty() {
        return Finding::ok(SUBJECT, "model.toml and the model agree");
    }
    Finding::ok(SUBJECT, format!("model.toml and the model agree (version {version})"))
}

fn differences(model: &Model, metadata: &Value) -> Vec<String> {
    let signatures = &metadata["metadata"]["signature_def"];
    let Some(signature) = signatures.get(&model.signature) else {
        return vec![format!("the model has no signature `{}`, but {}", model.signature, names(signatures))];
    };
    let whole = |shape: &Shape| shape.behind(model.has_batch_axis().then_some(Axis::Variable));
    let inputs = &signature["inputs"];
    let mut differences: Vec<_> = model
        .inputs
        .iter()
        .flat_map(|input| tensor("input", inputs, &input.name, input.datatype, &whole(&input.shape)))
        .collect();
    let is_described = |name: &String| model.inputs.iter().any(|input| input.name == *name);
    let others = inputs.as_object().into_iter().flat_map(|inputs| inputs.keys());
    differences.extend(
        others
            .filter(|name| !is_described(name))
            .map(|name| format!("the model also takes the input `{name}`")),
    );
    let outputs = &signature["outputs"];
    differences.extend(
        model.outputs().flat_map(|output| {
            tensor("output", outputs, &output.name, output.datatype, &whole(&output.shape))
        }),
    );
    differences
}

/// How the described tensor differs from the model's.
fn tensor(kind: &str, all: &Value, name: &str, datatype: DataType, described: &Shape) -> Vec<String> {
    let Some(seen) = all.get(name) else {
        return vec![format!("the model has no {kind} `{name}`, but {}", names(all))];
    };
    let mut differences = Vec::new();
    let dtype = seen["dtype"].as_str().unwrap_or_default();
    if dtype != datatype.tensorflow_name() {
        let seen = DataType::from_tensorflow(dtype).map_or(dtype, |datatype| datatype.as_str());
        differences.push(format!("{kind} `{name}` is {seen}, not {}", datatype.as_str()));
    }
    let shape = &seen["tensor_shape"];
    if shape["unknown_rank"].as_bool() == Some(true) {
        return differences;
    }
    let sizes =
        shape["dim"].as_array().into_iter().flatten().map(|dim| dim["size"].as_str().unwrap_or_default());
    let sizes: Vec<_> = sizes.collect();
    // A size of -1 accepts any length. The engine may know the length of an axis that the file leaves open.
    let is_open = |described: &Axis| kind == "output" && *described == Axis::Variable;
    let fits = |(seen, described): (&&str, &Axis)| {
        *seen == described.to_string() || *seen == "-1" || is_open(described)
    };
    if sizes.len() != described.axes().len() || !sizes.iter().zip(described.axes()).all(fits) {
        let seen = sizes.join(", ");
        differences.push(format!("{kind} `{name}` has shape [{seen}], not {described}"));
    }
    differences
}

fn names(object: &Value) -> String {
    let names: Vec<_> = object.as_object().into_iter().flat_map(|object| object.keys()).cloned().collect();
    if names.is_empty() { "none".to_owned() } else { format!("`{}`", names.join("`, `")) }
}

/// Calls the model with the sample of its description.
async fn sample(model: &Model, backend: &dyn Backend) -> Finding {
    const SUBJECT: &str = "sample";
    let Some(input) = model.sample_input() else {
        let detail = "the model has no `sample`, so nothing was called; without one, /predict/test cannot be used, and only other calls show \
                      whether an input or the endpoint is to blame";
        return Finding::unknown(SUBJECT, detail);
    };
    let batch = model.concatenate(std::iter::once(&input));
    let call = backend.predict(ModelCall::of_sample(batch, CALL_TIMEOUT));
    let answer = match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) if model.sample.is_none() => return refused(SUBJECT, &error.message),
        Ok(Err(error)) => return Finding::wrong(SUBJECT, error.message, "see the model server's log"),
        Err(_) => {
            let what = format!("the model did not answer within {} s", CALL_TIMEOUT.as_secs());
            return Finding::wrong(SUBJECT, what, "see the model server's log");
        }
    };
    let rendered = model
        .check_outputs(input.rows, answer)
        .and_then(|answer| model.render(&answer, 0..input.rows, usize::MAX));
    match rendered {
        Ok(rendered) => {
            let class = rendered.class_name.map_or_else(String::new, |class| format!(": {class}"));
            Finding::ok(SUBJECT, format!("the model answers the sample{class}"))
        }
        Err(error) => Finding::wrong(SUBJECT, error, "change `outputs` in model.toml"),
    }
}

/// Zeros and empty strings fit the shapes, but a model may refuse them, as an unknown category.
fn refused(subject: &str, reason: &str) -> Finding {
    let detail = format!("the model refused an input of zeros ({reason}); give it a `sample` in model.toml");
    Finding::unknown(subject, detail)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::path::Path;

    use futures_util::future::BoxFuture;
    use tepal_shared::{process::doctor::CheckResult, tensor::Tensor};

    use super::*;
    use crate::backend::BackendError;

    struct Refusing;

    impl Backend for Refusing {
        fn name(&self) -> &'static str {
            "refusing"
        }

        fn predict(&self, _: ModelCall) -> BoxFuture<'_, Result<Vec<Tensor>, BackendError>> {
            Box::pin(async { Err(BackendError::inference("Unknown Category")) })
        }

        fn probe(&self) -> BoxFuture<'_, Result<Value, BackendError>> {
            Box::pin(async { Ok(Value::Null) })
        }
    }

    #[tokio::test]
    async fn a_refused_sample_is_wrong_only_if_it_is_the_description_s() {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../compose/models");
        let mut model = Model::load(&models, "iris").unwrap();
        assert_eq!(sample(&model, &Refusing).await.result, CheckResult::Wrong);
        model.sample = None;
        let finding = sample(&model, &Refusing).await;
        assert_eq!(finding.result, CheckResult::Unknown);
        assert!(
            finding.detail.ends_with("Unknown Category); give it a `sample` in model.toml"),
            "{}",
            finding.detail
        );
    }
}
