//! `make hostile` runs all attacks for as long as one likes; here one of them shows that the parts work together.

use tepal_tests::hostile::{self, Options};
use tepal_tests::process::binary_path;

fn only(attack: &str) -> Options {
    Options {
        seconds: 1.0,
        is_short: true,
        only: vec![attack.to_owned()],
        bodies: vec![1 << 20],
        small_jobs: 0,
        rate: 5.0,
        program: binary_path("tepal-hostile"),
        made: "Made by a test.".to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attack_is_made_measured_and_judged() {
    let mut ended = 0;
    let report = hostile::run(&only("garbage"), |_| ended += 1).await.unwrap();

    // What the figures are depends on the machine.
    let text = report.to_string();
    assert_eq!(ended, 1);
    assert!(text.starts_with("Made by a test.\n"), "{text}");
    let row = text.lines().find(|line| line.starts_with("| `garbage`")).unwrap();
    assert!(row.contains(" x 400 malformed_request") && row.contains(" of 5 |"), "{row}");
}

#[tokio::test]
async fn an_attack_that_does_not_exist_is_refused() {
    let refused = hostile::run(&only("kindness"), |_| {}).await.unwrap_err();
    assert!(refused.starts_with("there is no attack kindness, but repeated-members,"), "{refused}");
}
