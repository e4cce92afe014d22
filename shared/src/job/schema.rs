//! JSON Schemas of the types that answers of the API contain.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::{JobId, JobStatus, Priority};

impl JsonSchema for JobId {
    fn schema_name() -> Cow<'static, str> {
        "JobId".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "uuid", "description": "UUIDv7"})
    }
}

impl JsonSchema for JobStatus {
    fn schema_name() -> Cow<'static, str> {
        "JobStatus".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "enum": Self::ALL.map(Self::as_str)})
    }
}

impl JsonSchema for Priority {
    fn schema_name() -> Cow<'static, str> {
        "Priority".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "enum": Self::ALL.map(Self::as_str)})
    }
}

#[cfg(test)]
mod tests {
    use serde::Serialize;
    use serde_json::{Value, json};

    use super::*;

    /// Asserts that these are all values of the type, as it is serialised.
    fn assert_enum<T: JsonSchema + Serialize>(values: &[T]) {
        let schema = T::json_schema(&mut SchemaGenerator::default());
        assert_eq!(schema.get("enum"), Some(&json!(values)), "{}", T::schema_name());
    }

    #[test]
    fn the_words_of_a_schema_are_those_that_are_serialised() {
        assert_enum(&JobStatus::ALL);
        assert_enum(&Priority::ALL);
        let id = serde_json::to_value(JobId::new(0)).unwrap();
        assert!(matches!(&id, Value::String(text) if text.len() == 36), "{id}");
    }
}
