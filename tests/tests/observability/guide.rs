//! Reads docs/operations.md: its headings and its tables.

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
