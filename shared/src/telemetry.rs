//! Logs: one JSON object a line, or text for people. Never inputs, results beyond a class name, keys or passwords.

use std::{fmt, io::IsTerminal as _, time::SystemTime};

use serde_json::{Map, Value, json};
use tracing::{
    Event, Subscriber,
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
        builder.with_target(false).try_init()
    } else {
        builder.event_format(JsonLines { component }).try_init()
    }
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

/// Writes `{"timestamp","level","component", ...fields}`.
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
        let mut line = Map::new();
        let now = humantime::format_rfc3339_millis(SystemTime::now());
        line.insert("timestamp".to_owned(), json!(now.to_string()));
        line.insert("level".to_owned(), json!(event.metadata().level().as_str()));
        line.insert("component".to_owned(), json!(self.component));
        event.record(&mut Fields(&mut line));
        writeln!(writer, "{}", Value::Object(line))
    }
}

struct Fields<'a>(&'a mut Map<String, Value>);

impl Fields<'_> {
    fn insert(&mut self, field: &Field, value: Value) {
        self.0.insert(field.name().to_owned(), value);
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.insert(field, json!(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.insert(field, json!(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.insert(field, json!(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.insert(field, json!(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.insert(field, json!(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.insert(field, json!(value));
    }
}
