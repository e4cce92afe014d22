//! Writes the reports: text or JSON to standard output, JSON and HTML to files.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::content::Report;
use super::html::Page;
use super::settings::ReportSettings;
use super::text::Text;

/// A report could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {source}", .path.display())]
pub(crate) struct OutputError {
    path: PathBuf,
    source: io::Error,
}

/// The open files of the reports.
#[derive(Debug)]
pub(crate) struct Outputs {
    json: Option<Output>,
    html: Option<Output>,
}

#[derive(Debug)]
struct Output {
    path: PathBuf,
    /// `None`: standard output.
    file: Option<File>,
}

impl Outputs {
    /// Creates the files that `settings` names.
    ///
    /// # Errors
    /// The first file that cannot be created.
    pub(crate) fn open(settings: &ReportSettings) -> Result<Self, OutputError> {
        let open = |path: &Option<PathBuf>| path.as_deref().map(Output::open).transpose();
        Ok(Self { json: open(&settings.json)?, html: open(&settings.html)? })
    }

    /// Writes every report. Without `-`, the text goes to standard output.
    ///
    /// # Errors
    /// The first report that cannot be written.
    pub(crate) fn write(self, report: &Report) -> Result<(), OutputError> {
        let is_stdout_used =
            [&self.json, &self.html].into_iter().flatten().any(|output| output.file.is_none());
        if !is_stdout_used {
            Output { path: "standard output".into(), file: None }
                .write(Text(report).to_string().as_bytes())?;
        }
        if let Some(json) = self.json {
            let text = serde_json::to_string_pretty(report).map_err(|error| json.error(error.into()))?;
            json.write(format!("{text}\n").as_bytes())?;
        }
        self.html.map_or(Ok(()), |html| html.write(Page(report).to_string().as_bytes()))
    }
}

impl Output {
    fn open(path: &Path) -> Result<Self, OutputError> {
        let file = if path == Path::new("-") { Ok(None) } else { File::create(path).map(Some) };
        let path = path.to_owned();
        file.map(|file| Self { path: path.clone(), file }).map_err(|source| OutputError { path, source })
    }

    fn write(mut self, bytes: &[u8]) -> Result<(), OutputError> {
        let written = match &mut self.file {
            Some(file) => file.write_all(bytes),
            None => io::stdout().write_all(bytes).and_then(|()| io::stdout().flush()),
        };
        written.map_err(|source| self.error(source))
    }

    fn error(&self, source: io::Error) -> OutputError {
        OutputError { path: self.path.clone(), source }
    }
}
