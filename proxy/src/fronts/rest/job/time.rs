//! A time in answers.

use std::{
    borrow::Cow,
    time::{Duration, UNIX_EPOCH},
};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

/// 9999-12-31T23:59:59Z, the last time that RFC 3339 can represent, in Unix milliseconds.
const LAST_MS: u64 = 253_402_300_799_000;

/// A time in Unix milliseconds, serialised as RFC 3339.
pub(super) struct Time(pub(super) u64);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let time = UNIX_EPOCH + Duration::from_millis(self.0.min(LAST_MS));
        serializer.collect_str(&humantime::format_rfc3339_millis(time))
    }
}

impl JsonSchema for Time {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "date-time"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_no_calendar_has_is_still_written() {
        assert_eq!(serde_json::to_value(Time(u64::MAX)).unwrap(), "9999-12-31T23:59:59.000Z");
    }
}
