//! The table of docs/models.md.

use std::fmt::Write as _;

use super::Kind;

/// How one case went.
#[derive(Clone, Debug)]
pub struct Checked {
    /// With which server.
    pub server: Kind,
    /// What was tried.
    pub case: &'static str,
    /// What was seen, or what is wrong.
    pub outcome: Result<String, String>,
}

/// A line for each case, a column for each server.
#[must_use]
pub fn table(all: &[Checked]) -> String {
    let mut servers: Vec<Kind> = Vec::new();
    let mut cases: Vec<&str> = Vec::new();
    for checked in all {
        servers.extend((!servers.contains(&checked.server)).then_some(checked.server));
        cases.extend((!cases.contains(&checked.case)).then_some(checked.case));
    }
    let mut text = "| |".to_owned();
    servers.iter().for_each(|server| write!(text, " {server} |").expect("a string"));
    write!(text, "\n| --- |{}\n", " --- |".repeat(servers.len())).expect("a string");
    for case in cases {
        write!(text, "| {case} |").expect("a string");
        for server in &servers {
            let found = all.iter().find(|checked| checked.server == *server && checked.case == case);
            let cell = match found.map(|checked| &checked.outcome) {
                Some(Ok(seen)) => seen.clone(),
                Some(Err(wrong)) => format!("**WRONG**: {wrong}"),
                None => String::new(),
            };
            write!(text, " {cell} |").expect("a string");
        }
        text.push('\n');
    }
    text
}
