//! The tables of settings and `--help` agree.

use std::collections::BTreeMap;
use std::process::Command;

use tepal_tests::process::binary_path;

use crate::{file, guide};

/// Each setting's default, `""` for none.
pub(crate) type Settings = BTreeMap<String, String>;

pub(crate) fn of_program(name: &str) -> Settings {
    let output = Command::new(binary_path(name)).arg("--help").env_clear().output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let entries = help.split("[env: ").skip(1);
    let setting = |entry: &str| {
        let name: String = entry.chars().take_while(|c| is_of_a_name(*c)).collect();
        let default = entry.split("[default: ").nth(1).and_then(|rest| rest.split(']').next());
        (name, default.unwrap_or_default().to_owned())
    };
    entries.map(setting).collect()
}

/// Whether names of settings have this character.
fn is_of_a_name(character: char) -> bool {
    character.is_ascii_uppercase() || character.is_ascii_digit() || character == '_'
}

fn of_guide(program: &str) -> Settings {
    let rows = guide::rows("Settings");
    let of_program = rows.iter().filter(|row| row[2] == "both" || row[2] == program);
    of_program.map(|row| (row[0].clone(), row[1].clone())).collect()
}

#[test]
fn the_guide_has_every_setting_with_its_default() {
    for program in ["proxy", "worker"] {
        let of_help = of_program(&format!("tepal-{program}"));
        assert!(of_help.len() > 15, "{program}: {of_help:?}");
        assert_eq!(of_guide(program), of_help, "left: docs/operations.md, right: tepal-{program} --help");
    }
}

#[test]
fn the_composition_gives_only_settings_that_exist() {
    let known = [of_program("tepal-proxy"), of_program("tepal-worker")].concat_names();
    let compose = file("compose/compose.yaml");
    let ours = compose.split("\nservices:").next().unwrap().to_owned()
        + &["proxy", "worker"].map(|name| service(&compose, name)).concat();
    let name = |line: &str| {
        let name = line.trim().split_once(':')?.0;
        let is_setting = name.len() > 2 && name.chars().all(is_of_a_name);
        is_setting.then(|| name.to_owned())
    };
    let given: Vec<String> = ours.lines().filter_map(name).collect();
    assert!(given.len() > 10, "{given:?}");
    for setting in given {
        let by_entrypoint = ["REDIS_PASSWORD_FILE", "MODEL_BACKEND_FILE"].contains(&setting.as_str());
        assert!(
            by_entrypoint || known.contains(&setting),
            "compose.yaml sets {setting}, which no program reads"
        );
    }
}

trait Names {
    fn concat_names(self) -> Vec<String>;
}

impl Names for [Settings; 2] {
    fn concat_names(self) -> Vec<String> {
        self.into_iter().flat_map(Settings::into_keys).collect()
    }
}

/// The lines of one service.
fn service(compose: &str, name: &str) -> String {
    let start = compose.find(&format!("\n  {name}:\n")).unwrap() + 1;
    let lines = compose[start..].lines();
    let own = lines.skip(1).take_while(|line| line.starts_with("    ") || line.trim().is_empty());
    own.collect::<Vec<_>>().join("\n")
}
