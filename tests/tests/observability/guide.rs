//! Reads docs/operations.md: its headings and its tables.

use std::collections::BTreeMap;

use crate::file;

/// The rows of all tables in the chapter `## title`, cell by cell, without the code marks.
pub(crate) fn rows(title: &str) -> Vec<Vec<String>> {
    let guide = file("docs/operations.md");
    let chapters = guide.split("\n## ");
    let chapter = chapters.into_iter().find(|chapter| chapter.lines().next() == Some(title));
    let lines = chapter.unwrap_or_else(|| panic!("no chapter {title}")).lines();
    let cells = |line: &str| {
        let line = line.trim_start_matches('|').trim_end_matches('|');
        line.split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect::<Vec<_>>()
    };
    lines.filter(|line| line.starts_with("| `")).map(cells).collect()
}

/// The text of every heading `### `.
pub(crate) fn sections() -> Vec<String> {
    let guide = file("docs/operations.md");
    guide.lines().filter_map(|line| line.strip_prefix("### ")).map(str::to_owned).collect()
}

/// Each alert of the overview with its severity.
pub(crate) fn alerts() -> BTreeMap<String, String> {
    let guide = file("docs/operations.md");
    let row = |line: &str| {
        let (name, rest) = line.strip_prefix("| [")?.split_once(']')?;
        Some((name.to_owned(), rest.split(" | ").nth(1)?.to_owned()))
    };
    guide.lines().filter_map(row).collect()
}
