//! Logs: one JSON object a line, or text for people. Never inputs, results beyond a class name, keys or passwords.

use std::{
    fmt,
    io::IsTerminal as _,
    panic::{self, PanicHookInfo},
    time::SystemTime,
};

use tracing::{
    Event, Subscriber, error,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter,
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

use crate::config::{LogFormat, LogSettings};

/// Starts logging for the service `component`.
///
/// # Errors
/// When the filter is malformed, or logging was started before.
pub fn start(
    component: &'static str,
    settings: &LogSettings,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let filter = EnvFilter::builder().parse(&settings.filter)?;
    let as_text = match settings.format {
        LogFormat::Auto => std::io::stdout().is_terminal(),
        LogFormat::Json => false,
        LogFormat::Text => true,
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter);
    if as_text {
        builder.with_target(false).try_init()?;
    } else {
        builder.event_format(JsonLines { component }).try_init()?;
    }
    panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// A panic is a bug; it is told where all else is told.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let payload = panic.payload();
    let text = payload.downcast_ref::<&str>().copied();
    let error = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    error!(action = "panicked", at = panic.location().map(tracing::field::display), error);
}

/// An error with all its causes, in one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
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

/// Writes `{"timestamp","level","component", ...fields}`. A line is written for each job, so it is written field by field.
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
        let now = humantime::format_rfc3339_millis(SystemTime::now());
        let (level, component) = (event.metadata().level(), self.component);
        write!(writer, r#"{{"timestamp":"{now}","level":"{level}","component":"{component}""#)?;
        // Ours all say what happened; those of libraries say at least whose they are.
        if event.metadata().fields().field("action").is_none() {
            write!(writer, r#","action":"library","target":"{}""#, event.metadata().target())?;
        }
        let mut fields = Fields { writer: &mut writer, outcome: Ok(()) };
        event.record(&mut fields);
        fields.outcome?;
        writeln!(writer, "}}")
    }
}

/// Writes each field behind a comma.
struct Fields<'a, 'w> {
    writer: &'a mut Writer<'w>,
    outcome: fmt::Result,
}

impl Fields<'_, '_> {
    /// `value` is JSON already. Names of fields are identifiers and need no escapes.
    fn add(&mut self, field: &Field, value: impl fmt::Display) {
        if self.outcome.is_ok() {
            self.outcome = write!(self.writer, r#","{}":{value}"#, field.name());
        }
    }

    fn add_text(&mut self, field: &Field, text: &str) {
        // A text always has a JSON form.
        self.add(field, serde_json::to_string(text).unwrap_or_default());
    }
}

impl Visit for Fields<'_, '_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add_text(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add_text(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() { self.add(field, value) } else { self.add(field, "null") }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write},
        sync::{Arc, Mutex},
    };

    use tracing::info;

    use super::*;

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
