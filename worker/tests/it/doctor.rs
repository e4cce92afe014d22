//! `tepal-worker doctor`: one line for each check, and an exit code.

mod models;

use tepal_tests::{
    model_server::{Behaviour, ModelServer, ServerSpec, TensorSpec},
    ports::free_port,
    process::{Service, Worker},
    redis::RedisServer,
};
use tonic::Code;

use crate::{queue::SOON, settings::Settings};

const MODELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../compose/models");

/// The doctor's output, and whether it found nothing wrong.
pub(crate) async fn doctor(redis_url: &str, settings: Settings) -> (bool, String) {
    let settings = Settings::default()
        .with("MODELS", "iris")
        .with("MODELS_DIR", MODELS)
        .with("REDIS_URL", redis_url)
        .and(settings);
    let doctor = Service::binary("tepal-worker").envs(&settings.pairs()).arg("doctor").start();
    let status = doctor.wait_exit(SOON).await;
    let text = doctor.logs().lines().join("\n");
    assert!(matches!(status.code(), Some(0 | 1)), "{status}: {text}");
    (status.success(), text)
}

/// The line of a check.
pub(crate) fn line<'a>(text: &'a str, subject: &str) -> &'a str {
    let found = text.lines().find(|line| line.get(7..).is_some_and(|line| line.starts_with(subject)));
    found.unwrap_or_else(|| panic!("no line about {subject}: {text}"))
}

/// A Redis with the settings that Tepal needs.
pub(crate) async fn sound() -> RedisServer {
    RedisServer::shipped().start().await
}

/// The doctor's report on a healthy Redis and a model server, with these further settings.
async fn with_server(spec: ServerSpec) -> (RedisServer, ModelServer) {
    (sound().await, ModelServer::start(spec).await)
}

#[tokio::test]
async fn a_healthy_setup_has_a_line_for_each_check_and_no_failure() {
    let redis = sound().await;

    let (is_well, text) = doctor(&redis.url(), Settings::onnx()).await;

    assert!(is_well, "{text}");
    let subjects: Vec<_> = text.lines().map(|line| line.split(':').next().unwrap()).collect();
    let expected = [
        "ok     Redis",
        "ok     version",
        "ok     rights",
        "ok     default user",
        "ok     persistence",
        "ok     fsync",
        "ok     eviction",
        "ok     memory",
        "ok     clock",
        "ok     stored format",
        "ok     model",
        "ok     description",
        "ok     sample",
        "13 checks, 0 wrong, 0 not possible",
    ];
    assert_eq!(subjects, expected, "{text}");
    assert!(line(&text, "sample").ends_with("setosa"), "{text}");
    assert!(line(&text, "description").ends_with("model.toml and the model agree"), "{text}");
    assert_eq!(redis.cli(&["DBSIZE"]), "0", "it left something behind");
}

#[tokio::test]
async fn a_redis_that_loses_jobs_is_reported_with_the_remedy() {
    let redis = RedisServer::start().await;
    redis.cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    redis.cli(&["CONFIG", "SET", "appendfsync", "no"]);

    let (is_well, text) = doctor(&redis.url(), Settings::onnx()).await;

    assert!(!is_well, "{text}");
    for (subject, fix) in [
        ("persistence: there is no append-only file", "CONFIG SET appendonly yes"),
        ("fsync: appendfsync is no", "CONFIG SET appendfsync always"),
        ("eviction: maxmemory-policy is allkeys-lru", "CONFIG SET maxmemory-policy noeviction"),
        ("memory: hash-max-listpack-value is 64", "CONFIG SET hash-max-listpack-value 1024"),
    ] {
        let line = line(&text, subject);
        assert!(line.starts_with("WRONG") && line.contains(fix), "{line}");
    }
    assert!(text.ends_with("13 checks, 4 wrong, 0 not possible"), "{text}");
}

#[tokio::test]
async fn the_faster_fsync_is_no_fault_and_its_possible_loss_is_named() {
    let redis = sound().await;
    let (_, text) = doctor(&redis.url(), Settings::onnx()).await;
    assert_eq!(line(&text, "fsync"), "ok     fsync: appendfsync is always");
    redis.cli(&["CONFIG", "SET", "appendfsync", "everysec"]);

    let (is_well, text) = doctor(&redis.url(), Settings::onnx()).await;

    assert!(is_well && line(&text, "fsync").ends_with("may lose the last two seconds of jobs"), "{text}");
}

#[tokio::test]
async fn an_unreachable_redis_is_reported_and_the_model_still_checked() {
    let url = format!("redis://user:canary@127.0.0.1:{}", free_port());

    let (is_well, text) = doctor(&url, Settings::onnx()).await;

    assert!(!is_well);
    let line_of_redis = line(&text, "Redis: 127.0.0.1:");
    assert!(line_of_redis.contains("start Redis, or set REDIS_HOST and REDIS_PORT"), "{text}");
    assert!(line(&text, "sample").starts_with("ok"), "{text}");
    assert!(!text.contains("canary"), "{text}");
}

#[tokio::test]
async fn a_wrong_password_is_reported_without_showing_it() {
    let redis = RedisServer::options().password("right").start().await;
    let url = format!("redis://:canary@{}", redis.addr());

    let (is_well, text) = doctor(&url, Settings::onnx()).await;

    assert!(!is_well);
    assert!(line(&text, "Redis").contains("set REDIS_USERNAME and REDIS_PASSWORD"), "{text}");
    assert!(!text.contains("canary"), "{text}");
}

/// The rule of the shipped ACL file for the worker, for a user with a password.
fn shipped_rule() -> String {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../compose/users-7.2.acl");
    let text = std::fs::read_to_string(file).unwrap();
    let rule = text.lines().find(|line| line.starts_with("user tepal-worker ")).unwrap();
    // This is the one command that Redis 7.0 does not know.
    rule.replace("#WORKER_PASSWORD_SHA256", ">password").replace(" +client|setinfo", "")
}

async fn with_rule(rule: &str) -> (bool, String) {
    let redis = sound().await;
    let words: Vec<_> = rule.split(' ').skip(1).collect();
    redis.cli(&[&["ACL", "SETUSER"], &words[..]].concat());
    let url = format!("redis://tepal-worker:password@{}", redis.addr());
    doctor(&url, Settings::onnx()).await
}

#[tokio::test]
async fn the_shipped_user_has_all_rights_it_needs_and_unreadable_settings_are_named() {
    let (is_well, text) = with_rule(&shipped_rule()).await;

    assert!(is_well, "{text}");
    assert!(line(&text, "rights").starts_with("ok"), "{text}");
    for subject in ["persistence", "eviction"] {
        assert!(line(&text, subject).contains("this user may not run INFO"), "{text}");
    }
    assert!(line(&text, "memory").contains("this user may not run CONFIG GET"), "{text}");
    assert!(text.ends_with("13 checks, 0 wrong, 4 not possible"), "{text}");
}

#[tokio::test]
async fn jobs_of_another_stored_format_are_named_with_what_to_do() {
    let redis = sound().await;
    redis.cli(&["SET", "{predict_queue:0}:format", "3"]);

    let (is_well, text) = doctor(&redis.url(), Settings::onnx()).await;

    let found = line(&text, "stored format");
    assert!(
        !is_well && found.contains("stored format 3, but this version reads and writes format 2"),
        "{text}"
    );
    assert!(text.contains("start the version that wrote the queue"), "{text}");
}

#[tokio::test]
async fn each_right_that_is_missing_is_named() {
    let rule = shipped_rule();
    // Needed only in a cluster.
    let of_cluster = ["+asking", "+cluster|slots"];
    let is_needed = |word: &&str| word.starts_with('+') && !of_cluster.contains(word);
    let rights = rule.split(' ').filter(is_needed).collect::<Vec<_>>();
    assert!(rights.len() > 15, "{rule}");
    for right in rights {
        let command = right[1..].replace('|', " ").to_uppercase();

        let without: Vec<_> = rule.split(' ').filter(|word| *word != right).collect();

        let (is_well, text) = with_rule(&without.join(" ")).await;

        assert!(!is_well, "without {right}: {text}");
        let wrong = text.lines().find(|line| line.starts_with("WRONG")).unwrap();
        assert!(wrong.to_uppercase().contains(&command), "without {right}: {wrong}");
    }
}

#[tokio::test]
async fn a_default_user_without_rights_is_reported_by_the_doctor_and_at_the_start() {
    let redis = sound().await;
    redis.cli(&["ACL", "SETUSER", "own", "on", ">pass", "~*", "&*", "+@all"]);
    let url = format!("redis://own:pass@{}", redis.addr());
    assert!(doctor(&url, Settings::onnx()).await.0);
    redis.cli(&["ACL", "SETUSER", "default", "-xadd"]);

    let (is_well, text) = doctor(&url, Settings::onnx()).await;

    assert!(!is_well, "{text}");
    let line = line(&text, "default user");
    assert!(line.starts_with("WRONG") && line.contains("it may not run XADD {predict_queue:0}"), "{line}");
    let worker = Worker::start(&url, &Settings::onnx().pairs()).await;
    worker.wait_for_log("default_user_lacks_rights", SOON).await;
}

#[tokio::test]
async fn a_right_on_other_keys_is_not_enough() {
    let rule = shipped_rule().replace("~predict_queue:workers", "~other");

    let (is_well, text) = with_rule(&rule).await;

    assert!(!is_well, "{text}");
    assert!(line(&text, "rights").contains("HSET predict_queue:workers"), "{text}");
    assert!(!line(&text, "rights").contains("XADD"), "{text}");
}

#[tokio::test]
async fn a_user_that_may_read_the_secret_of_the_proxies_is_named() {
    let rule = shipped_rule().replace("~{predict_queue:*}:dead:*", "~{predict_queue:*}:*");

    let (is_well, text) = with_rule(&rule).await;

    assert!(!is_well, "{text}");
    assert!(line(&text, "rights").contains("may read {predict_queue:0}:secret"), "{text}");
}

#[tokio::test]
async fn a_model_server_that_fits_its_description_is_well() {
    let (redis, server) = with_server(ServerSpec::iris()).await;

    let (is_well, text) = doctor(&redis.url(), Settings::serving(&server)).await;

    assert!(is_well, "{text}");
    assert!(line(&text, "model: `iris` is available (tensorflow_serving)").starts_with("ok"), "{text}");
    assert_eq!(server.calls().len(), 1, "one call, with the sample");
}

#[tokio::test]
async fn an_unreachable_model_server_is_reported() {
    let redis = sound().await;
    let addr = ([127, 0, 0, 1], free_port()).into();

    let (is_well, text) = doctor(&redis.url(), Settings::serving_at(addr)).await;

    assert!(!is_well);
    let line = line(&text, "model");
    assert!(line.contains(&format!("{addr}: The model server is not available")), "{line}");
    assert!(line.contains("set TF_SERVING_HOST"), "{line}");
}

#[tokio::test]
async fn a_description_that_contradicts_the_model_is_reported_in_full() {
    let spec = ServerSpec {
        inputs: vec![TensorSpec::new("input", &[5]), TensorSpec::new("mask", &[1])],
        output: TensorSpec::new("scores", &[3]),
        ..ServerSpec::iris()
    };
    let (redis, server) = with_server(spec).await;

    let (is_well, text) = doctor(&redis.url(), Settings::serving(&server)).await;

    assert!(!is_well);
    let line = line(&text, "description");
    for expected in [
        "input `input` has shape [-1, 5], not [-1, 4]",
        "the model also takes the input `mask`",
        "the model has no output `output`, but `scores`",
        "change model.toml",
    ] {
        assert!(line.contains(expected), "{line}");
    }
}

#[tokio::test]
async fn a_model_that_fails_at_its_sample_is_reported() {
    let (redis, server) = with_server(ServerSpec::iris()).await;
    for (behaviour, expected) in [
        (Behaviour::Status(Code::Internal, "no memory".to_owned()), "Model inference failed: no memory"),
        (
            Behaviour::WrongShape,
            "The model answered with shape [1, 4] instead of [1, 3] in the output `output`",
        ),
        (Behaviour::Nan, "not a finite number"),
    ] {
        server.script_next(1, behaviour);
        let (is_well, text) = doctor(&redis.url(), Settings::serving(&server)).await;
        assert!(!is_well);
        assert!(line(&text, "sample").contains(expected), "{text}");
    }
}

#[tokio::test]
async fn the_rights_on_the_last_partition_are_checked_too() {
    let rule = shipped_rule().replace("~{predict_queue:*}:", "~{predict_queue:0}:");

    let redis = sound().await;
    let words: Vec<_> = rule.split(' ').skip(1).collect();
    redis.cli(&[&["ACL", "SETUSER"], &words[..]].concat());
    let url = format!("redis://tepal-worker:password@{}", redis.addr());
    assert!(doctor(&url, Settings::onnx()).await.0);
    let (is_well, text) = doctor(&url, Settings::onnx().with("PARTITIONS", 4)).await;

    assert!(!is_well);
    assert!(line(&text, "rights").contains("{predict_queue:3}:stream:any:normal"), "{text}");
}
