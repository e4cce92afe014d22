//! The file with the API keys: how it is made, read, read again, and refused.

use tepal_tests::{
    http::Method,
    process::{Proxy, Service},
    wait::eventually,
};

use crate::{
    gateway::{Gateway, SOON},
    keys::{Keys, id_of, new_key},
};

async fn status(gateway: &Gateway, key: &str) -> u16 {
    gateway.as_key(key, Method::GET, "/jobs", "").await.status
}

async fn becomes(gateway: &Gateway, key: &str, expected: u16) {
    eventually(SOON, "the new keys", async || status(gateway, key).await == expected).await;
}

/// How many lines of the log have this action.
fn count(proxy: &Proxy, action: &str) -> usize {
    proxy.logs().json().iter().filter(|line| line["action"] == action).count()
}

#[test]
fn a_new_key_is_printed_once_with_its_entry_which_does_not_hold_it() {
    let (key, entry) =
        new_key("--owner shop --scope submit --scope read --scope read --requests-per-minute 600");
    let secret = key.rsplit('_').next().unwrap();
    assert_eq!((key.starts_with("tepal_"), secret.len()), (true, 64));
    assert!(!entry.contains(secret), "{entry}");
    let lines: Vec<&str> = entry.lines().filter(|line| !line.starts_with("sha256 = \"")).collect();
    let id = format!("id = \"{}\"", id_of(&key));
    let expected = [
        "# For API_KEYS_FILE:",
        "[[key]]",
        &id,
        r#"scopes = ["read", "submit"]"#,
        r#"owner = "shop""#,
        "requests_per_minute = 600",
    ];
    assert_eq!(lines, expected);
    assert_ne!(new_key("").0, key);
}

#[tokio::test]
async fn a_start_with_a_wrong_file_reports_all_mistakes() {
    let keys = Keys::with("keys = 1\n[[key]]\nid = \"A\"\nsha256 = \"12\"\nscopes = [\"write\"]\n");
    let path = keys.path();
    let proxy = Service::binary("tepal-proxy")
        .env("MODELS_DIR", concat!(env!("CARGO_MANIFEST_DIR"), "/../compose/models"))
        .env("API_KEYS_FILE", path.display())
        .env("LEASE_MS", "soon")
        .start();
    assert!(!proxy.wait_exit(SOON).await.success());
    let text = proxy.logs().lines().join("\n");
    for expected in [
        "LEASE_MS: `soon`",
        "the file has no `keys`; known: key, anonymous",
        "key 1: id must be",
        "key 1: sha256 must be 64 hexadecimal digits",
        "key 1: the scope `write` is not one of read, submit, admin",
    ] {
        assert!(text.contains(expected), "{text}");
    }
}

#[tokio::test]
async fn a_key_is_added_and_another_revoked_without_a_restart() {
    let keys = Keys::with("");
    let old = keys.add("--owner shop");
    let gateway = keys.gateway(&[]).await;
    let id = gateway.submit_as(&old).await;

    let new = keys.add("--owner shop");
    becomes(&gateway, &new, 200).await;
    assert_eq!(status(&gateway, &old).await, 200);

    let (_, of_new) = keys.text().rsplit_once("[[key]]").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    keys.write(&format!("[[key]]{of_new}"));
    becomes(&gateway, &old, 401).await;
    let job = gateway.as_key(&new, Method::GET, &format!("/job/{id}"), "").await;
    assert_eq!(job.status, 200);
    assert_eq!(count(&gateway.proxy, "api_keys_loaded"), 3);
}

#[tokio::test]
async fn a_wrong_new_version_changes_nothing_and_is_reported() {
    let keys = Keys::with("");
    let key = keys.add("");
    let gateway = keys.gateway(&[]).await;
    let good = keys.text();
    for (number, bad) in ["[[key]", "[[key]]\nid = \"a\"\n", ""].into_iter().enumerate() {
        keys.write(bad);
        eventually(SOON, "the refusal", async || count(&gateway.proxy, "api_keys_rejected") > number).await;
        assert_eq!((status(&gateway, &key).await, status(&gateway, "").await), (200, 401));
    }
    std::fs::remove_file(keys.path()).unwrap();
    eventually(SOON, "the refusal", async || count(&gateway.proxy, "api_keys_rejected") > 3).await;
    assert_eq!(status(&gateway, &key).await, 200);

    keys.write(&good);
    let another = keys.add("");
    becomes(&gateway, &another, 200).await;
    let lines = gateway.proxy.logs().json();
    let line = lines.iter().find(|line| line["action"] == "api_keys_rejected").unwrap();
    assert_eq!(line["level"], "ERROR");
    assert!(line["error"].as_str().unwrap().contains("it is not TOML"), "{line}");
}
