//! The table of log actions has every action of the sources, and no other.

use std::collections::BTreeSet;
use std::path::Path;

use crate::{guide, root};

fn of_sources(dir: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            of_sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = std::fs::read_to_string(&path).unwrap();
            let words = source.split("action = \"").skip(1).filter_map(|rest| rest.split('"').next());
            found.extend(words.map(str::to_owned));
        }
    }
}

#[test]
fn the_guide_has_every_log_action() {
    let mut used = BTreeSet::new();
    for part in ["proxy", "worker", "shared"] {
        of_sources(&root().join(part).join("src"), &mut used);
    }
    let rows = guide::rows("Logs");
    let told: BTreeSet<String> =
        rows.iter().flat_map(|row| row[0].split("`, `").map(str::to_owned)).collect();
    let differing: Vec<&String> = told.symmetric_difference(&used).collect();
    assert!(differing.is_empty(), "either only in docs/operations.md or only in the sources: {differing:?}");
}
