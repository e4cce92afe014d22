//! The Helm chart and the programs agree. `make test-kubernetes` checks the rest of the chart.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{file, guide};

/// Settings that the chart itself gives, from other values.
const GIVEN: [&str; 24] = [
    "REDIS_URL",
    "REDIS_HOST",
    "REDIS_PORT",
    "REDIS_USERNAME",
    "REDIS_PASSWORD",
    "SENTINEL_USERNAME",
    "SENTINEL_PASSWORD",
    "REDIS_CA_FILE",
    "REDIS_CERT_FILE",
    "REDIS_KEY_FILE",
    "MODELS_DIR",
    "LISTEN_ADDR",
    "GRPC_LISTEN_ADDR",
    "API_KEYS_FILE",
    "TLS_CERT_FILE",
    "TLS_KEY_FILE",
    "TLS_CLIENT_CA_FILE",
    "TLS_CLIENT_AUTH",
    "SHUTDOWN_DELAY_MS",
    "DRAIN_TIMEOUT_SECONDS",
    "WORKERS_EXPECTED",
    "MODELS",
    "MODEL_BACKEND",
    "METRICS_ADDR",
];

fn schema() -> Value {
    serde_json::from_str(&file("compose/kubernetes/tepal/values.schema.json")).unwrap()
}

/// The names that a map of settings may have.
fn accepted(pointer: &str) -> BTreeSet<String> {
    let schema = schema();
    let names = schema.pointer(&format!("{pointer}/propertyNames/enum")).and_then(Value::as_array);
    let names = names.unwrap_or_else(|| panic!("no names at {pointer}"));
    names.iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_chart_takes_every_setting_of_the_guide_and_no_other() {
    let given = GIVEN.map(str::to_owned);
    for (of, pointer) in [
        ("both", "/properties/settings"),
        ("proxy", "/properties/proxy/properties/settings"),
        ("worker", "/definitions/workerSettings"),
    ] {
        let rows = guide::rows("Settings").into_iter().filter(|row| row[2] == of);
        let documented: BTreeSet<_> = rows.map(|row| row[0].clone()).collect();
        let expected: BTreeSet<_> = documented.into_iter().filter(|name| !given.contains(name)).collect();
        assert_eq!(accepted(pointer), expected, "left: values.schema.json, right: docs/operations.md ({of})");
    }
}

#[test]
fn the_chart_has_the_version_of_the_programs() {
    let chart = file("compose/kubernetes/tepal/Chart.yaml");
    for line in [
        format!("version: {}", env!("CARGO_PKG_VERSION")),
        format!("appVersion: \"{}\"", env!("CARGO_PKG_VERSION")),
    ] {
        assert!(chart.lines().any(|found| found == line), "{line}: {chart}");
    }
}
