//! `tepal-proxy doctor`: one line for each check, and an exit code.

use std::os::unix::fs::PermissionsExt as _;

use tepal_shared::queue::{
    Policy,
    keys::Keys,
    link::{ConnectionSettings, Redis},
};
use tepal_tests::{
    process::{Proxy, Service},
    redis::{Fsync, RedisServer},
    wait::eventually,
};

use crate::{gateway::SOON, keys, store::Store};

const MODELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../compose/models");

/// What the doctor printed, and whether it found nothing wrong.
pub(crate) async fn doctor(redis_url: &str, settings: &[(&str, &str)]) -> (bool, String) {
    let settings = [&[("MODELS_DIR", MODELS), ("REDIS_URL", redis_url)], settings].concat();
    let doctor = Service::binary("tepal-proxy").envs(&settings).arg("doctor").start();
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

/// A Redis as Tepal wants it.
async fn sound() -> RedisServer {
    RedisServer::shipped().start().await
}

/// A worker that says this of its model.
async fn worker_says(redis: &RedisServer, state: &str) {
    let connection = Redis::open(ConnectionSettings::new(&redis.url()).unwrap()).unwrap();
    let store = Store::new(connection, Keys::new("predict_queue"), Policy::default());
    let state = format!(
        r#"{{"host":"h","pid":1,"version":"1","backend":"onnx",{state},"consumers":2,"in_flight":0}}"#
    );
    store.work.heartbeat("w", &state).await.unwrap();
}

#[tokio::test]
async fn everything_as_it_should_be_has_a_line_each_and_no_failure() {
    let redis = sound().await;
    worker_says(&redis, r#""backend_state":"ok""#).await;

    let (is_well, text) = doctor(&redis.url(), &[]).await;

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
        "ok     workers",
        "11 checks, 0 wrong, 0 not possible",
    ];
    assert_eq!(subjects, expected, "{text}");
}

#[tokio::test]
async fn no_worker_is_mentioned_and_one_without_its_model_is_wrong() {
    let redis = sound().await;
    let (is_well, text) = doctor(&redis.url(), &[]).await;
    assert!(is_well && line(&text, "workers: no worker is alive").starts_with('?'), "{text}");

    worker_says(&redis, r#""backend_state":"down","backend_detail":"it sleeps""#).await;

    let (is_well, text) = doctor(&redis.url(), &[]).await;
    assert!(!is_well);
    assert!(line(&text, "workers").contains("does not answer: it sleeps"), "{text}");
}

#[tokio::test]
async fn the_keys_are_counted_and_a_file_that_everybody_may_write_is_wrong() {
    let redis = sound().await;
    let keys = keys::Keys::with("[anonymous]\nscopes = [\"read\"]\n");
    keys.add("");
    let path = keys.path();
    let settings = [("API_KEYS_FILE", path.to_str().unwrap())];
    let (is_well, text) = doctor(&redis.url(), &settings).await;
    assert!(is_well, "{text}");
    assert_eq!(line(&text, "API keys"), "ok     API keys: 1 key; callers without one may read");

    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();

    let (is_well, text) = doctor(&redis.url(), &settings).await;
    assert!(!is_well && line(&text, "API keys").contains("To fix it: chmod o-w "), "{text}");
}

#[tokio::test]
async fn missing_required_replicas_are_reported() {
    let redis = sound().await;

    let (is_well, text) = doctor(&redis.url(), &[("REPLICAS_REQUIRED", "1")]).await;

    assert!(!is_well);
    assert!(line(&text, "replicas: 0 connected, but 1 must confirm").contains("REPLICAS_REQUIRED"), "{text}");
}

#[tokio::test]
async fn a_failover_that_can_lose_jobs_is_wrong() {
    let primary = sound().await;
    // By default the primary waits 5 s for more replicas before it sends its data.
    primary.cli(&["CONFIG", "SET", "repl-diskless-sync-delay", "0"]);
    let _replica = RedisServer::shipped().replica_of(&primary).start().await;
    let online = async || primary.cli(&["INFO", "replication"]).contains("state=online");
    eventually(SOON, "the replica", online).await;

    let (is_well, text) = doctor(&primary.url(), &[]).await;
    assert!(!is_well);
    let wrong = line(&text, "replicas: 1 connected, but the primary accepts jobs without them");
    assert!(wrong.contains("min-replicas-to-write 1") && wrong.contains("REPLICAS_REQUIRED=1"), "{text}");

    let (is_well, text) = doctor(&primary.url(), &[("REPLICAS_REQUIRED", "1")]).await;
    assert!(is_well && line(&text, "replicas: 1 connected, 1 must confirm").starts_with("ok"), "{text}");
    primary.cli(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    let (is_well, text) = doctor(&primary.url(), &[]).await;
    assert!(is_well && line(&text, "replicas: 1 connected, and min-replicas").starts_with("ok"), "{text}");
}

#[tokio::test]
async fn a_replica_is_wrong() {
    let primary = sound().await;
    let replica = RedisServer::shipped().replica_of(&primary).start().await;

    let (is_well, text) = doctor(&replica.url(), &[]).await;

    assert!(!is_well);
    let wrong = line(&text, "Redis");
    assert!(wrong.contains("Redis is a read-only replica") && wrong.contains("promoted"), "{text}");
}

#[tokio::test]
async fn the_shipped_user_may_do_all_that_is_needed_and_each_missing_right_is_named() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../compose/users-7.2.acl");
    let text = std::fs::read_to_string(file).unwrap();
    let rule = text.lines().find(|line| line.starts_with("user tepal-proxy ")).unwrap();
    // This is the one command that Redis 7.0 does not know.
    let rule = rule.replace("#PROXY_PASSWORD_SHA256", ">password").replace(" +client|setinfo", "");
    let redis = sound().await;
    let url = format!("redis://tepal-proxy:password@{}", redis.addr());
    let with_rule = async |words: Vec<&str>| {
        redis.cli(&[&["ACL", "SETUSER", "tepal-proxy", "reset"], &words[2..]].concat());
        doctor(&url, &[]).await
    };
    let words: Vec<_> = rule.split(' ').collect();
    let (is_well, text) = with_rule(words.clone()).await;
    assert!(is_well && line(&text, "rights").starts_with("ok"), "{text}");

    // Needed only in a cluster.
    let of_cluster = ["+asking", "+cluster|slots"];
    for right in words.iter().filter(|word| word.starts_with('+') && !of_cluster.contains(word)) {
        let without: Vec<_> = words.iter().filter(|word| *word != right).copied().collect();
        let (is_well, text) = with_rule(without).await;

        let command = right[1..].replace('|', " ").to_uppercase();
        assert!(!is_well, "without {right}: {text}");
        let wrong = text.lines().find(|line| line.starts_with("WRONG")).unwrap();
        assert!(wrong.to_uppercase().contains(&command), "without {right}: {wrong}");
    }
}

/// A Redis whose default user has these rights, and its address for a user with those.
async fn with_default_user(rights: &str, own: &str) -> (RedisServer, String) {
    let rules = format!(
        "user default off {rights}\nuser own on >pass ~* &* +@all {own}\nuser all on >pass ~* &* +@all\n"
    );
    let options = RedisServer::options().aof(Fsync::EverySec).config("hash-max-listpack-value 1024");
    let redis = options.acl_file(&rules, "all", "pass").start().await;
    let url = format!("redis://own:pass@{}", redis.addr());
    (redis, url)
}

#[tokio::test]
async fn the_port_for_grpc_has_a_line_where_there_is_one() {
    let redis = sound().await;
    let (_, text) = doctor(&redis.url(), &[("GRPC_LISTEN_ADDR", "127.0.0.1:8001")]).await;
    let line = line(&text, "gRPC");
    assert!(
        line.starts_with("ok") && line.ends_with("clients connect to 127.0.0.1:8001, without TLS"),
        "{line}"
    );
}

#[tokio::test]
async fn a_default_user_without_rights_is_reported_by_the_doctor_and_at_the_start() {
    for (rights, refused) in [("", "SELECT 0"), ("~{predict_queue:1}:* +@all", "HSET {predict_queue:0}:job:")]
    {
        let (_redis, url) = with_default_user(rights, "").await;

        let (is_well, text) = doctor(&url, &[]).await;

        assert!(!is_well, "{text}");
        let line = line(&text, "default user");
        assert!(line.starts_with("WRONG") && line.contains(&format!("it may not run {refused}")), "{line}");
        assert!(line.contains("run ACL SETUSER default ~* &* +@all"), "{line}");

        let proxy = Proxy::start(&url, &[]).await;
        let warning = proxy.wait_for_log("default_user_lacks_rights", SOON).await;
        assert!(
            warning.contains("WARN") && warning.contains("the next restart loses every job"),
            "{warning}"
        );
    }
}

#[tokio::test]
async fn users_of_an_older_acl_file_cannot_know_the_default_users_rights() {
    let (_redis, url) = with_default_user("", "-acl|dryrun").await;

    let (_, text) = doctor(&url, &[]).await;

    let line_of_user = line(&text, "default user");
    assert!(line_of_user.starts_with('?'), "{text}");
    assert!(line_of_user.contains("this user may not run ACL DRYRUN"), "{text}");
    assert!(line(&text, "rights").contains("ACL DRYRUN default PING"), "{text}");
    let proxy = Proxy::start(&url, &[]).await;
    proxy.wait_for_log("default_user_unknown", SOON).await;
}

#[tokio::test]
async fn a_default_user_that_is_off_and_has_all_rights_is_well() {
    let (_redis, url) = with_default_user("~* &* +@all", "").await;

    let (is_well, text) = doctor(&url, &[]).await;

    assert!(is_well && line(&text, "default user").starts_with("ok"), "{text}");
    let proxy = Proxy::start(&url, &[]).await;
    proxy.wait_for_log("health_changed", SOON).await;
    assert_eq!(proxy.logs().find("default_user"), None);
}
