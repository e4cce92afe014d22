//! Settings of both services, gathered from their parts.

use std::path::PathBuf;

use clap::Args;

use crate::{
    job::ModelName,
    model::{
        Model,
        repository::{Loaded, ModelError, Repository},
    },
    process::{
        settings::Mistakes,
        telemetry::{self, LogFormat, LogSettings},
        trace::TraceSettings,
    },
    queue::{
        Policy,
        arguments::QueueArgs,
        keys::Keys,
        link::{ConnectionSettings, RedisArgs},
    },
};

/// The settings that both services have.
#[derive(Args, Clone, Debug)]
pub struct CommonArgs {
    #[command(flatten)]
    redis: RedisArgs,
    #[command(flatten)]
    queue: QueueArgs,
    /// Folder with one folder for each model, which contains a model.onnx, a model.toml or both
    #[arg(
        long,
        env = "MODELS_DIR",
        default_value = "compose/models",
        value_name = "DIR",
        help_heading = "Model"
    )]
    models_dir: PathBuf,
    /// Name of the model that this queue serves; none = iris if it is there, or the only one
    #[arg(long, env = "MODEL_NAME", value_name = "NAME", help_heading = "Model")]
    model_name: Option<String>,
    /// Form of the log: json, text, or auto (text on a terminal)
    #[arg(long, env = "LOG_FORMAT", default_value = "auto", value_name = "FORMAT", help_heading = "Logs")]
    log_format: String,
    /// What is logged: error, warn, info, debug, or by module, as in `info,tepal_worker=debug`
    #[arg(long, env = "LOG_LEVEL", default_value = "info", value_name = "FILTER", help_heading = "Logs")]
    log_level: String,
    /// Address of an OTLP/gRPC receiver of traces, http://host:4317; none = no traces
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL", help_heading = "Traces")]
    otel_exporter_otlp_endpoint: Option<String>,
    /// Share of traces to record, 0 to 1, unless the client's traceparent decides
    #[arg(
        long,
        env = "OTEL_TRACES_SAMPLER_ARG",
        default_value = "1",
        value_name = "RATIO",
        help_heading = "Traces"
    )]
    otel_traces_sampler_arg: String,
}

/// [`CommonArgs`] after checking.
#[derive(Clone, Debug)]
pub struct Common {
    /// The connection to Redis.
    pub redis: ConnectionSettings,
    /// The keys of the queue.
    pub keys: Keys,
    /// Limits of the queue.
    pub policy: Policy,
    /// The folder with the models.
    pub models_dir: PathBuf,
    /// The default model. `None`: a model server describes it.
    pub model: Option<Model>,
    /// Its name.
    pub model_name: ModelName,
    /// Other versions of the model that cannot be used, with the reason.
    pub broken_versions: Vec<String>,
    /// The log.
    pub log: LogSettings,
    /// Traces; `None` = off.
    pub trace: Option<TraceSettings>,
}

/// [`CommonArgs`] after checking, without the model: a proxy needs none to start.
#[derive(Clone, Debug)]
pub struct Base {
    /// The connection to Redis.
    pub redis: ConnectionSettings,
    /// The keys of the queue.
    pub keys: Keys,
    /// Limits of the queue.
    pub policy: Policy,
    /// The folder with the models.
    pub models_dir: PathBuf,
    /// The default model, if it is set.
    pub model_name: Option<ModelName>,
    /// The log.
    pub log: LogSettings,
    /// Traces; `None` = off.
    pub trace: Option<TraceSettings>,
}

impl CommonArgs {
    /// Checks the settings. Adds whatever is wrong to `mistakes`, and may then return `None`. `is_served` says whether a model
    /// server describes models for which `model.toml` names this backend.
    pub fn check(&self, is_served: impl Fn(Option<&str>) -> bool, mistakes: &mut Mistakes) -> Option<Common> {
        let base = self.check_base(mistakes);
        let loaded = self.model(is_served);
        let (name, loaded) =
            loaded.map_err(|error| mistakes.add("MODEL_NAME, MODELS_DIR", telemetry::chain(&error))).ok()?;
        let model_name = name.parse();
        let model_name =
            model_name.map_err(|error| mistakes.add("MODEL_NAME", telemetry::chain(&error))).ok()?;
        let broken = loaded.iter().flat_map(|loaded| &loaded.broken_versions);
        let broken_versions = broken.map(|broken| telemetry::chain(broken)).collect();
        let model = loaded.map(|loaded| loaded.model);
        let Base { redis, keys, policy, models_dir, model_name: _, log, trace } = base?;
        Some(Common { redis, keys, policy, models_dir, model, model_name, broken_versions, log, trace })
    }

    /// The same without the model.
    pub fn check_base(&self, mistakes: &mut Mistakes) -> Option<Base> {
        let redis = self.redis.check(mistakes);
        let is_cluster = redis.as_ref().is_some_and(ConnectionSettings::is_cluster);
        let (keys, policy) = self.queue.check(is_cluster, mistakes);
        let log = LogSettings {
            format: mistakes.parsed("LOG_FORMAT", &self.log_format, LogFormat::Auto),
            filter: self.log_level.clone(),
        };
        if !telemetry::is_filter(&log.filter) {
            let right = "must be a level, or levels by module as in `info,tepal_worker=debug`";
            mistakes.add("LOG_LEVEL", format!("`{}` {right}", log.filter));
        }
        let trace = self.trace(mistakes);
        let model_name = self.model_name.as_deref().filter(|name| ModelName::is_valid(name));
        let model_name = model_name.and_then(|name| name.parse().ok());
        let redis = redis?.for_queue(&keys, policy.partitions);
        let models_dir = self.models_dir.clone();
        Some(Base { redis, keys, policy, models_dir, model_name, log, trace })
    }

    /// The default model, if it is set to a valid name.
    pub fn check_model_name(&self, mistakes: &mut Mistakes) {
        if let Some(Err(error)) = self.model_name.as_deref().map(str::parse::<ModelName>) {
            mistakes.add("MODEL_NAME", telemetry::chain(&error));
        }
    }

    /// The name of the default model, and the model, unless a server describes it.
    fn model(
        &self,
        is_served: impl Fn(Option<&str>) -> bool,
    ) -> Result<(String, Option<Loaded>), ModelError> {
        let repository = Repository::new(&self.models_dir);
        let name = self.model_name.clone().map_or_else(|| repository.default_model(), Ok)?;
        if let Some(undescribed) = repository.undescribed(&name)?
            && is_served(undescribed.backend.as_deref())
        {
            return Ok((name, None));
        }
        let loaded = repository.load(&name)?;
        Ok((name, Some(loaded)))
    }

    fn trace(&self, mistakes: &mut Mistakes) -> Option<TraceSettings> {
        let endpoint = self.otel_exporter_otlp_endpoint.as_deref()?;
        let text = &self.otel_traces_sampler_arg;
        let ratio = text.trim().parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
        if ratio.is_none() {
            mistakes.add("OTEL_TRACES_SAMPLER_ARG", format!("`{text}` is not a number from 0 to 1"));
        }
        if !endpoint.starts_with("http://") {
            mistakes.add(
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                format!("`{endpoint}` must have the form http://host:4317"),
            );
        }
        Some(TraceSettings { endpoint: endpoint.to_owned(), ratio: ratio? })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::process::settings::ConfigError;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        common: CommonArgs,
    }

    fn check(flags: &[&str]) -> Result<Common, ConfigError> {
        let models = concat!(env!("CARGO_MANIFEST_DIR"), "/../compose/models");
        let flags = ["test", "--models-dir", models].into_iter().chain(flags.iter().copied());
        let cli = Cli::try_parse_from(flags).unwrap();
        let mut mistakes = Mistakes::default();
        let common = cli.common.check(|_| false, &mut mistakes);
        mistakes.unless_any(common)
    }

    #[test]
    fn no_settings_at_all_are_fine() {
        let common = check(&[]).unwrap();
        assert_eq!(common.redis.display, "127.0.0.1:6379");
        assert_eq!(common.policy, Policy::default());
        assert_eq!(common.model.unwrap().name, "iris");
    }

    #[test]
    fn an_input_is_not_kept_longer_than_its_job() {
        let kept = |flags: &[&str]| check(flags).map(|common| common.policy.failed_input_ttl.as_secs());
        let hour = ["--result-ttl-seconds", "3600"];
        assert_eq!(kept(&[]).unwrap(), 43_200);
        assert_eq!(kept(&hour).unwrap(), 3600, "nobody asked for more");
        assert_eq!(kept(&[&hour[..], &["--failed-input-ttl-seconds", "60"]].concat()).unwrap(), 60);
        let error = kept(&[&hour[..], &["--failed-input-ttl-seconds", "3601"]].concat()).unwrap_err();
        let expected = "FAILED_INPUT_TTL_SECONDS: `3601` is more than RESULT_TTL_SECONDS, which is 3600";
        assert!(error.to_string().contains(expected), "{error}");
    }

    #[test]
    fn every_mistake_is_reported_at_once() {
        let error =
            check(&["--lease-ms", "soon", "--partitions", "257", "--redis-port", "0", "--model-name", "x"]);
        let text = error.unwrap_err().to_string();
        for expected in [
            "LEASE_MS: `soon` is not a whole number from 300 to 3600000",
            "PARTITIONS: `257` is not a whole number from 1 to 256",
            "REDIS_PORT: `0`",
            "MODEL_NAME, MODELS_DIR: MODELS_DIR `",
        ] {
            assert!(text.contains(expected), "{text}");
        }
    }

    #[test]
    fn a_password_never_shows() {
        let common = check(&["--redis-url", "redis://user:canary@h:1/0"]).unwrap();
        assert_eq!(common.redis.display, "h:1");
        let wrong = check(&["--redis-url", "nonsense://:canary@h"]).unwrap_err();
        assert!(!wrong.to_string().contains("canary"));
        let cli = Cli::try_parse_from(["test", "--redis-password", "canary"]).unwrap();
        assert!(!format!("{:?}", cli.common).contains("canary"));
    }

    #[test]
    fn what_the_url_of_redis_lacks_comes_from_the_other_settings() {
        let user = |flags: &[&str]| {
            let settings = check(flags).unwrap().redis.info.redis_settings().clone();
            (settings.username().map(str::to_owned), settings.password().map(str::to_owned))
        };
        let given = ["--redis-username", "u", "--redis-password", "p"];
        let with = |url| [&["--redis-url", url], &given[..]].concat();
        assert_eq!(user(&given), (Some("u".to_owned()), Some("p".to_owned())));
        assert_eq!(user(&with("redis://h:1")), (Some("u".to_owned()), Some("p".to_owned())));
        assert_eq!(user(&with("redis://a:b@h:1")), (Some("a".to_owned()), Some("b".to_owned())));
        assert_eq!(user(&with("redis://:b@h:1")), (None, Some("b".to_owned())));
    }

    #[test]
    fn settings_of_tls_that_contradict_each_other_are_reported() {
        let error = |flags: &[&str]| check(flags).unwrap_err().to_string();
        let needless = error(&["--redis-ca-file", "ca.pem", "--redis-key-file", "k"]);
        assert!(needless.contains("REDIS_CA_FILE and REDIS_KEY_FILE: without effect"), "{needless}");
        let half = error(&["--redis-url", "rediss://h", "--redis-key-file", "k"]);
        assert!(half.contains("REDIS_CERT_FILE: must be given with REDIS_KEY_FILE"), "{half}");
        let missing = error(&["--redis-url", "rediss://h", "--redis-ca-file", "/nowhere"]);
        assert!(missing.contains("REDIS_CA_FILE: cannot read /nowhere"), "{missing}");
        let insecure = error(&["--redis-url", "rediss://h/#insecure"]);
        assert!(insecure.contains("REDIS_URL: #insecure would trust everybody"), "{insecure}");
        assert!(check(&["--redis-url", "rediss://h"]).is_ok());
    }

    #[test]
    fn what_is_overridden_is_not_checked() {
        let others = ["--redis-port", "tcp://10.96.0.11:6379", "--redis-host", "http://h"];
        let common = check(&[&["--redis-url", "redis://h:1"], &others[..]].concat()).unwrap();
        assert_eq!(common.redis.display, "h:1");
        assert!(check(&["--otel-traces-sampler-arg", "endpoint=http://h"]).is_ok(), "there are no traces");
        let text = check(&others).unwrap_err().to_string();
        assert!(text.contains("REDIS_HOST: `http://h` must be a host name"), "{text}");
        assert!(text.contains("REDIS_PORT: `tcp://10.96.0.11:6379` is an address"), "{text}");
    }

    #[test]
    fn a_port_that_kubernetes_set_is_reported_as_such() {
        let mut mistakes = Mistakes::default();
        mistakes.port("TF_SERVING_GRPC_PORT", "tcp://10.96.0.12:8500");
        let text = mistakes.unless_any(Some(())).unwrap_err().to_string();
        let expected = "TF_SERVING_GRPC_PORT: `tcp://10.96.0.12:8500` is an address, which Kubernetes puts into \
             TF_SERVING_GRPC_PORT when there is a Service named tf-serving-grpc; set TF_SERVING_GRPC_PORT in the pod \
             to the port alone, or set enableServiceLinks: false there";
        assert!(text.ends_with(expected), "{text}");
    }

    #[test]
    fn an_ipv6_address_of_redis_may_have_brackets() {
        for host in ["::1", "[::1]"] {
            assert_eq!(check(&["--redis-host", host]).unwrap().redis.display, "[::1]:6379");
        }
        assert_eq!(check(&["--redis-url", "redis://[::1]:7"]).unwrap().redis.display, "[::1]:7");
        assert_eq!(check(&["--redis-url", "rediss://[::1]:7"]).unwrap().redis.display, "[::1]:7");
    }
}
