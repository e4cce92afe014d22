//! Where the reports go: text or JSON to standard output, JSON and HTML to files.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::plan::Plan;
use crate::report::content::Report;
use crate::report::html::Page;
use crate::report::text::Text;

/// A report could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {source}", .path.display())]
pub(crate) struct OutputError {
    path: PathBuf,
    source: io::Error,
}

/// Files that are ready to be written.
#[derive(Debug)]
pub(crate) struct Outputs {
    json: Option<Output>,
    html: Option<Output>,
}

#[derive(Debug)]
struct Output {
    path: PathBuf,
    /// Standard output if there is none.
    file: Option<File>,
}

impl Outputs {
    /// Creates the files that `plan` names.
    ///
    /// # Errors
    /// The first file that cannot be created.
    pub(crate) fn open(plan: &Plan) -> Result<Self, OutputError> {
        let open = |path: &Option<PathBuf>| path.as_deref().map(Output::open).transpose();
        Ok(Self { json: open(&plan.json)?, html: open(&plan.html)? })
    }

    /// Writes every report; the text is left out if another report took standard output.
    ///
    /// # Errors
    /// The first report that cannot be written.
    pub(crate) fn write(self, report: &Report) -> Result<(), OutputError> {
        let taken = [&self.json, &self.html].into_iter().flatten().any(|output| output.file.is_none());
        if !taken {
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
