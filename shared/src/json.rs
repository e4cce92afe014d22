//! JSON of requests. A value of serde_json takes 72 bytes, and requests contain long lists of numbers: a [`Json`] takes 24 bytes, and
//! a number in a list of numbers 16. What reads values takes a [`JsonRef`], which either kind can be.

mod large;

use serde::{Serialize, Serializer};
use serde_json::{Map, Number, Value};

pub use large::replace_large;

/// A JSON value.
#[derive(Debug)]
pub enum Json {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number outside of a list of numbers.
    Number(Number),
    /// A string.
    String(Box<str>),
    /// A list of numbers.
    Numbers(Box<[Number]>),
    /// Any list.
    List(Box<[Json]>),
    /// An object.
    Object(Box<[Member]>),
}

/// A member of an object.
#[derive(Debug)]
pub struct Member {
    /// Its name.
    pub name: Box<str>,
    /// Its value.
    pub value: Json,
}

/// A borrowed JSON value.
#[derive(Clone, Copy, Debug)]
pub enum JsonRef<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(&'a Number),
    /// A string.
    String(&'a str),
    /// A list.
    List(ListRef<'a>),
    /// An object.
    Object(ObjectRef<'a>),
}

/// A borrowed JSON list.
#[derive(Clone, Copy, Debug)]
pub struct ListRef<'a>(Elements<'a>);

#[derive(Clone, Copy, Debug)]
enum Elements<'a> {
    Numbers(&'a [Number]),
    Jsons(&'a [Json]),
    Values(&'a [Value]),
}

/// A borrowed JSON object. One of its two parts is empty.
#[derive(Clone, Copy, Debug)]
pub struct ObjectRef<'a> {
    members: &'a [Member],
    map: Option<&'a Map<String, Value>>,
}

impl<'a> From<&'a Json> for JsonRef<'a> {
    fn from(value: &'a Json) -> Self {
        match value {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) => Self::Number(number),
            Json::String(text) => Self::String(text),
            Json::Numbers(numbers) => Self::List(ListRef(Elements::Numbers(numbers))),
            Json::List(list) => Self::List(ListRef(Elements::Jsons(list))),
            Json::Object(members) => Self::Object(ObjectRef { members, map: None }),
        }
    }
}

impl<'a> From<&'a Value> for JsonRef<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::Number(number) => Self::Number(number),
            Value::String(text) => Self::String(text),
            Value::Array(list) => Self::List(ListRef(Elements::Values(list))),
            Value::Object(map) => Self::Object(ObjectRef { members: &[], map: Some(map) }),
        }
    }
}

impl Serialize for JsonRef<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Number(number) => number.serialize(serializer),
            Self::String(text) => serializer.serialize_str(text),
            Self::List(list) => serializer.collect_seq(list.iter()),
            Self::Object(members) => serializer.collect_map(members.iter()),
        }
    }
}

impl<'a> JsonRef<'a> {
    /// The text of a string.
    #[must_use]
    pub fn as_str(self) -> Option<&'a str> {
        if let Self::String(text) = self { Some(text) } else { None }
    }

    /// The number.
    #[must_use]
    pub fn as_number(self) -> Option<&'a Number> {
        if let Self::Number(number) = self { Some(number) } else { None }
    }

    /// The elements of a list.
    #[must_use]
    pub fn as_list(self) -> Option<ListRef<'a>> {
        if let Self::List(list) = self { Some(list) } else { None }
    }

    /// The member of an object with this name.
    #[must_use]
    pub fn get(self, name: &str) -> Option<Self> {
        if let Self::Object(members) = self { members.get(name) } else { None }
    }

    /// Its kind, for error messages.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::String(_) => "a string",
            Self::List(_) => "a list",
            Self::Object(_) if self.large().is_some() => "a number",
            Self::Object(_) => "an object",
        }
    }

    /// The text that [`replace_large`] replaced by this value.
    #[must_use]
    pub fn large(self) -> Option<&'a str> {
        match self {
            Self::Object(members) if members.len() == 1 => members.get(large::MARK)?.as_str(),
            _ => None,
        }
    }
}

impl<'a> ListRef<'a> {
    /// How many elements.
    #[must_use]
    pub fn len(self) -> usize {
        match self.0 {
            Elements::Numbers(numbers) => numbers.len(),
            Elements::Jsons(list) => list.len(),
            Elements::Values(list) => list.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The element with this index.
    #[must_use]
    pub fn get(self, index: usize) -> Option<JsonRef<'a>> {
        match self.0 {
            Elements::Numbers(numbers) => numbers.get(index).map(JsonRef::Number),
            Elements::Jsons(list) => list.get(index).map(JsonRef::from),
            Elements::Values(list) => list.get(index).map(JsonRef::from),
        }
    }

    /// The elements.
    pub fn iter(self) -> impl Iterator<Item = JsonRef<'a>> {
        (0..self.len()).filter_map(move |index| self.get(index))
    }
}

impl<'a> ObjectRef<'a> {
    /// How many members.
    #[must_use]
    pub fn len(self) -> usize {
        self.members.len() + self.map.map_or(0, Map::len)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The member with this name. Takes linear time.
    #[must_use]
    pub fn get(self, name: &str) -> Option<JsonRef<'a>> {
        let member = self.members.iter().find(|member| *member.name == *name);
        let own = member.map(|member| JsonRef::from(&member.value));
        own.or_else(|| self.map?.get(name).map(JsonRef::from))
    }

    /// The members, in their order.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, JsonRef<'a>)> {
        let own = self.members.iter().map(|member| (&*member.name, JsonRef::from(&member.value)));
        let map = self.map.into_iter().flatten();
        own.chain(map.map(|(name, value)| (name.as_str(), JsonRef::from(value))))
    }

    /// The names of the members, in their order.
    pub fn names(self) -> impl Iterator<Item = &'a str> {
        self.iter().map(|(name, _)| name)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_small() {
        assert_eq!((size_of::<Json>(), size_of::<Number>(), size_of::<Member>()), (24, 16, 40));
    }

    #[test]
    fn both_kinds_of_values_are_read_alike() {
        let number = |number: i32| Json::Number(number.into());
        let members = Box::new([
            Member { name: "a".into(), value: Json::Numbers([1.into(), 2.into()].into()) },
            Member {
                name: "b".into(),
                value: Json::List([Json::Null, Json::Bool(true), Json::String("c".into())].into()),
            },
            Member { name: "d".into(), value: Json::List([].into()) },
            Member { name: "e".into(), value: number(-1) },
            Member { name: "f".into(), value: Json::Object([].into()) },
        ]);
        let value = json!({"a": [1, 2], "b": [null, true, "c"], "d": [], "e": -1, "f": {}});
        let members = Json::Object(members);
        for read in [JsonRef::from(&members), JsonRef::from(&value)] {
            assert_eq!(serde_json::to_string(&read).unwrap(), value.to_string());
            let list = read.get("b").and_then(JsonRef::as_list).unwrap();
            assert_eq!(
                (list.len(), list.is_empty(), list.get(2).and_then(JsonRef::as_str)),
                (3, false, Some("c"))
            );
            assert!(list.get(3).is_none() && read.get("g").is_none());
            assert_eq!(read.get("e").and_then(JsonRef::as_number), Some(&Number::from(-1)));
            let JsonRef::Object(members) = read else { panic!("{read:?}") };
            assert_eq!((members.len(), members.is_empty()), (5, false));
            assert_eq!(members.names().collect::<String>(), "abdef");
        }
    }
}
