//! What the descriptions of the operations share while the contract is made: the limits, an example, and the schemas of bodies.

use schemars::{
    JsonSchema, Schema, SchemaGenerator,
    generate::SchemaSettings,
    transform::{RecursiveTransform, Transform as _},
};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// Where the document keeps its schemas, as a URI fragment.
const COMPONENTS: &str = "/components/schemas";

/// The contract while it is made.
pub(crate) struct Contract<'a> {
    /// A submission, for examples.
    pub(crate) submission: &'a Value,
    /// Most bytes of a body.
    pub(crate) largest_body: usize,
    schemas: SchemaGenerator,
}

impl<'a> Contract<'a> {
    pub(crate) fn new(submission: &'a Value, largest_body: usize) -> Self {
        let settings = SchemaSettings::draft2020_12().for_serialize().with(|settings| {
            settings.definitions_path = COMPONENTS.into();
            settings.meta_schema = None;
        });
        Self { submission, largest_body, schemas: settings.into_generator() }
    }

    /// The schema of a type as it is serialised. A type with a name becomes a component.
    pub(crate) fn schema<T: JsonSchema>(&mut self) -> Value {
        plain(self.schemas.subschema_for::<T>())
    }

    /// Adds a component, a body that is read or written member by member. Returns the reference to it.
    pub(crate) fn define(&mut self, name: &str, schema: Value) -> Value {
        self.schemas.definitions_mut().insert(name.to_owned(), schema);
        json!({"$ref": format!("#{COMPONENTS}/{name}")})
    }

    /// An answer with this body.
    pub(crate) fn answer<T: JsonSchema + Serialize>(&mut self, description: &str, example: &T) -> Value {
        // Serialising an answer cannot fail: its keys are strings.
        let example = serde_json::to_value(example).unwrap_or_default();
        self.answer_like::<T>(description, &example)
    }

    /// An answer with a body that a `T` begins.
    pub(crate) fn answer_like<T: JsonSchema>(&mut self, description: &str, example: &Value) -> Value {
        json!({
            "description": description,
            "content": {"application/json": {"schema": self.schema::<T>(), "example": example}},
        })
    }

    /// All components by their names.
    pub(super) fn into_schemas(mut self) -> Map<String, Value> {
        let schemas = self.schemas.take_definitions(false).into_iter();
        let schemas = schemas.filter_map(|(name, schema)| Some((name, plain(schema.try_into().ok()?))));
        let mut schemas: Vec<_> = schemas.collect();
        schemas.sort_by(|(one, _), (other, _)| one.cmp(other));
        schemas.into_iter().collect()
    }
}

/// The schema without what clients have no use for: `null`, since members are omitted instead, and the sizes of our integers.
fn plain(mut schema: Schema) -> Value {
    RecursiveTransform(|schema: &mut Schema| {
        let Some(members) = schema.as_object_mut() else { return };
        if members.get("format").and_then(Value::as_str).is_some_and(|format| format.starts_with("uint")) {
            members.remove("format");
        }
        if let Some(Value::Array(types)) = members.get_mut("type") {
            types.retain(|name| name != "null");
            if let [name] = types.as_slice() {
                let name = name.clone();
                members.insert("type".to_owned(), name);
            }
        }
        if let Some(Value::Array(choices)) = members.get_mut("anyOf") {
            choices.retain(|choice| *choice != json!({"type": "null"}));
            if let [Value::Object(choice)] = choices.as_slice() {
                let choice = choice.clone();
                members.remove("anyOf");
                members.extend(choice);
            }
        }
    })
    .transform(&mut schema);
    schema.to_value()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize, JsonSchema)]
    struct Inner {
        size: usize,
    }

    #[derive(Serialize, JsonSchema)]
    struct Outer {
        /// Said in the contract
        #[serde(skip_serializing_if = "Option::is_none")]
        text: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        inner: Option<Inner>,
    }

    #[test]
    fn an_omitted_member_is_optional_and_never_null() {
        let submission = json!({});
        let mut contract = Contract::new(&submission, 1);
        assert_eq!(contract.schema::<Outer>(), json!({"$ref": "#/components/schemas/Outer"}));
        let inner = json!({"type": "integer", "minimum": 0});
        let expected = json!({
            "Inner": {"type": "object", "properties": {"size": inner}, "required": ["size"]},
            "Outer": {"type": "object", "properties": {
                "text": {"type": "string", "description": "Said in the contract"},
                "inner": {"$ref": "#/components/schemas/Inner"},
            }},
        });
        assert_eq!(Value::from(contract.into_schemas()), expected);
    }
}
