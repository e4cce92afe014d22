//! A file with API keys, made by `tepal-proxy key new`, and a gateway that asks for them.

use std::{path::PathBuf, process::Command};

use tempfile::TempDir;
use tepal_tests::{
    http::{Answer, Method},
    process::binary_path,
};

use crate::gateway::{FLOWER, Gateway, JSON};

/// See the module.
pub(crate) struct Keys {
    dir: TempDir,
}

impl Keys {
    /// A file that says this of callers without a key.
    pub(crate) fn with(anonymous: &str) -> Self {
        let keys = Self { dir: TempDir::new().unwrap() };
        keys.write(anonymous);
        keys
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("keys.toml")
    }

    pub(crate) fn text(&self) -> String {
        std::fs::read_to_string(self.path()).unwrap()
    }

    /// Puts a new file in the place of the old one at once.
    pub(crate) fn write(&self, text: &str) {
        let new = self.dir.path().join("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.path()).unwrap();
    }

    /// Makes a key and adds it to the file.
    pub(crate) fn add(&self, flags: &str) -> String {
        let (key, entry) = new_key(flags);
        self.write(&format!("{}\n{entry}", self.text()));
        key
    }

    /// A gateway with this file.
    pub(crate) async fn gateway(&self, settings: &[(&str, &str)]) -> Gateway {
        let path = self.path();
        Gateway::with(&[&[("API_KEYS_FILE", path.to_str().unwrap())], settings].concat()).await
    }
}

/// What `tepal-proxy key new` prints: the key, and what to add to the file.
pub(crate) fn new_key(flags: &str) -> (String, String) {
    let mut command = Command::new(binary_path("tepal-proxy"));
    let output = command.args(["key", "new"]).args(flags.split_whitespace()).env_clear().output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let (key, entry) = text.split_once("\n\n").unwrap();
    (key.to_owned(), entry.to_owned())
}

/// The id in a key.
pub(crate) fn id_of(key: &str) -> &str {
    key.split('_').nth(1).unwrap()
}

impl Gateway {
    /// Sends a request with a key, or without one if it is empty.
    pub(crate) async fn as_key(&self, key: &str, method: Method, path: &str, body: &str) -> Answer {
        let headers = [JSON, ("x-api-key", key)];
        self.send(method, path, if key.is_empty() { &headers[..1] } else { &headers }, body).await
    }

    /// Submits the flower with a key; gives the job's id.
    pub(crate) async fn submit_as(&self, key: &str) -> String {
        let answer = self.as_key(key, Method::POST, "/predict", FLOWER).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        answer.json()["job_id"].as_str().unwrap().to_owned()
    }
}
