//! Tests of the harness itself: a fault that does not hit, or a wait that does not wait, would make every
//! other test worthless.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failing step fails the test")]

mod fault_proxy;
mod hostile;
mod http;
mod process;
mod redis;
mod wait;

use std::path::Path;
use std::time::Duration;

use tepal_tests::process::Service;

const SOON: Duration = Duration::from_secs(10);

/// The panic text of a future that must panic.
async fn panic_text(future: impl Future<Output = ()> + Send + 'static) -> String {
    let panic = tokio::spawn(future).await.unwrap_err().into_panic();
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap()
}

fn shell(script: &str) -> Service {
    Service::program("script", Path::new("/bin/sh")).arg("-c").arg(script).start()
}
