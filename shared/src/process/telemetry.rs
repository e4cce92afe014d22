//! Logs: one JSON object a line, or text for people. Never log inputs, results beyond a class name, keys or passwords.

mod output;

use std::{
    error::Error,
    fmt,
    fs::File,
    io::{self, IsTerminal as _, Write as _},
    os::fd::AsFd as _,
    panic::{self, PanicHookInfo},
    str::FromStr,
    sync::mpsc,
    thread,
    time::{Duration, SystemTime},
};

use serde::Serialize;
use tracing::{
    Event, Subscriber, error,
    field::{Field, Visit},
    level_filters::LevelFilter,
};
use tracing_subscriber::{
    EnvFilter,
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

use self::output::Output;

/// Settings of the log.
#[derive(Clone, Debug, Default)]
pub struct LogSettings {
    /// The form of a line.
    pub format: LogFormat,
    /// A filter in the syntax of `tracing_subscriber::EnvFilter`.
    pub filter: String,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

impl FromStr for LogFormat {
    type Err = &'static str;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "auto" => Ok(Self::Auto),
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            _ => Err("must be auto, json or text"),
        }
    }
}

static OUTPUT: Output = Output::new();
/// How long the end of the process waits for a blocked output.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Writes the rest of the log when it is dropped.
#[derive(Debug)]
#[must_use = "drop it last: it writes the lines that wait"]
pub struct Log(());

impl Drop for Log {
    fn drop(&mut self) {
        OUTPUT.flush(LAST_WORDS);
    }
}

/// Number of lines that were dropped, because the output was too slow or failed.
#[must_use]
pub fn dropped_lines() -> u64 {
    OUTPUT.dropped()
}

/// Prints to standard error why the program ends, if that is possible.
pub fn complain(program: &str, error: &(dyn Error + 'static)) {
    let text = format!("{program}: {}\n", chain(error));
    let (written, done) = mpsc::channel();
    let writing = move || {
        let _ = io::stderr().write_all(text.as_bytes());
        let _ = written.send(());
    };
    if thread::Builder::new().spawn(writing).is_ok() {
        let _ = done.recv_timeout(LAST_WORDS);
    }
}

/// Whether `filter` is valid. A single word that is not a level is invalid: it would be read as a module, and nothing else would be
/// logged.
pub(crate) fn is_filter(filter: &str) -> bool {
    let is_directive =
        |part: &str| part.contains(['=', '[', ']']) || part.trim().parse::<LevelFilter>().is_ok();
    EnvFilter::builder().parse(filter).is_ok() && filter.split(',').all(is_directive)
}

/// Starts logging for the service `component`.
///
/// # Errors
/// When the filter is malformed, or logging was started before.
pub fn start(component: &'static str, settings: &LogSettings) -> Result<Log, Box<dyn Error + Send + Sync>> {
    let filter = EnvFilter::builder().parse(&settings.filter)?;
    let as_text = match settings.format {
        LogFormat::Auto => io::stdout().is_terminal(),
        LogFormat::Json => false,
        LogFormat::Text => true,
    };
    // Not the handle of the standard library: the thread would hold its lock during a write that blocks.
    let output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    OUTPUT.start(output)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(&OUTPUT);
    // The subscriber would print its own errors, and a print that fails is a panic.
    let builder = builder.log_internal_errors(false);
    if as_text {
        builder.with_target(false).try_init()?;
    } else {
        builder.event_format(JsonLines { component }).try_init()?;
    }
    panic::set_hook(Box::new(log_panic));
    Ok(Log(()))
}

/// Logs a panic.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let payload = panic.payload();
    let text = payload.downcast_ref::<&str>().copied();
    let error = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    error!(action = "panicked", at = panic.location().map(tracing::field::display), error);
}

/// A time span for the log: milliseconds with a fraction.
#[must_use]
pub fn millis(span: Duration) -> f64 {
    span.as_micros() as f64 / 1000.0
}

/// An error with all its causes, in one line.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.ends_with(&message) {
            text = format!("{text}: {}", message.trim());
        }
        cause = error.source();
    }
    text
}

/// Writes `{"timestamp","level","component", ...fields}`. Jobs write many lines, so each line is built in one buffer and written as a
/// whole.
struct JsonLines {
    component: &'static str,
}

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = Line(Vec::with_capacity(USUAL_LINE));
        line.add("timestamp", &format_args!("{}", humantime::format_rfc3339_millis(SystemTime::now())));
        line.add("level", event.metadata().level().as_str());
        line.add("component", self.component);
        // All events of Tepal have an action. Those of libraries get their module.
        if event.metadata().fields().field("action").is_none() {
            line.add("action", "library");
            line.add("target", event.metadata().target());
        }
        event.record(&mut line);
        line.0.extend_from_slice(b"}\n");
        writer.write_str(std::str::from_utf8(&line.0).map_err(|_| fmt::Error)?)
    }
}

/// Bytes. Few lines are longer.
const USUAL_LINE: usize = 512;

/// A JSON object without its end.
struct Line(Vec<u8>);

impl Line {
    /// Names of fields are identifiers and need no escapes.
    fn add(&mut self, name: &str, value: &(impl Serialize + ?Sized)) {
        self.0.extend_from_slice(if self.0.is_empty() { b"{\"" } else { b",\"" });
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b"\":");
        // This cannot fail: texts and numbers have a JSON form, and numbers that are not finite are null.
        let _ = serde_json::to_writer(&mut self.0, value);
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field.name(), &format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field.name(), &value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field.name(), &value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field.name(), &value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field.name(), &value);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        sync::{Arc, Mutex},
    };

    use tracing::info;

    use super::*;

    #[test]
    fn a_filter_has_levels_alone_or_by_module() {
        for filter in [
            "info",
            "WARN",
            "off",
            "",
            "info,tepal_worker=debug",
            "error,tepal_proxy=trace",
            "[batch{rows}]=debug",
        ] {
            assert!(is_filter(filter), "{filter}");
        }
        for filter in ["loud", "inof,tepal_worker=debug", "tepal_worker=loud", "tepal_worker", "info;debug"] {
            assert!(!is_filter(filter), "{filter}");
        }
    }

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The lines that are logged meanwhile.
    fn logged(action: impl FnOnce()) -> Vec<serde_json::Value> {
        let written = Lines::default();
        let writer = written.clone();
        let subscriber = tracing_subscriber::fmt()
            .event_format(JsonLines { component: "proxy" })
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, action);
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_panic_is_a_line_that_names_its_place() {
        let lines = logged(|| {
            let usual = panic::take_hook();
            panic::set_hook(Box::new(log_panic));
            let one = panic::catch_unwind(|| panic!("nothing left"));
            let other = panic::catch_unwind(|| panic!("{} left", 2));
            panic::set_hook(usual);
            assert!(one.is_err() && other.is_err());
        });
        assert_eq!(lines.iter().map(|line| &line["error"]).collect::<Vec<_>>(), ["nothing left", "2 left"]);
        for line in lines {
            assert_eq!((&line["action"], &line["level"]), (&"panicked".into(), &"ERROR".into()));
            assert!(line["at"].as_str().unwrap().starts_with(file!()), "{line}");
        }
    }

    #[test]
    fn every_line_is_json_whatever_its_fields_hold() {
        let lines = logged(|| {
            let nothing: Option<&str> = None;
            info!(text = "a \"quoted\"\nword", id = %"x\\y", why = ?Some("é"), nothing, ms = 1.25, nan = f64::NAN);
            info!(count = 3_u64, less = -1_i64, yes = true);
        });
        assert_eq!(lines[0]["level"], "INFO");
        assert_eq!(lines[0]["component"], "proxy");
        assert_eq!(lines[0]["text"], "a \"quoted\"\nword");
        assert_eq!(lines[0]["action"], "library");
        assert_eq!((&lines[0]["id"], &lines[0]["why"]), (&"x\\y".into(), &"Some(\"é\")".into()));
        assert_eq!(lines[0]["ms"], 1.25);
        assert!(lines[0]["nan"].is_null() && lines[0].get("nothing").is_none());
        assert_eq!(
            (&lines[1]["count"], &lines[1]["less"], &lines[1]["yes"]),
            (&3.into(), &(-1).into(), &true.into())
        );
    }
}
