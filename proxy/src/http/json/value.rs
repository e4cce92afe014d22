//! Builds the values of a document.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Number;
use tepal_shared::{
    json::{Json, Member},
    tensor::pointer::Pointer,
};

use super::lengths::Lengths;
use crate::{
    error::{ApiError, LONGEST_POINTER, MOST_MISTAKES, Mistake, short::short},
    http::budget::Meter,
};

/// The text of an error that is never shown.
pub(super) const NO_MEMORY: &str = "no memory is left";
/// Names of an object with more members are sorted to find repeated ones.
const FEW: usize = 16;

/// A value, and pointers to its repeated members.
pub(super) struct Document {
    value: Json,
    repeated: Vec<String>,
}

impl Document {
    pub(super) fn value(self) -> Result<Json, ApiError> {
        if self.repeated.is_empty() {
            return Ok(self.value);
        }
        let mistake = |pointer| Mistake::at(pointer, "repeated", "must be given only once");
        Err(ApiError::Invalid(self.repeated.into_iter().map(mistake).collect()))
    }
}

/// Reads a document.
pub(super) struct Metered<'a> {
    pub(super) meter: &'a mut Meter,
    pub(super) lengths: &'a mut Lengths,
}

impl<'de> DeserializeSeed<'de> for Metered<'_> {
    type Value = Document;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Document, D::Error> {
        let mut repeated = Vec::new();
        let Self { meter, lengths } = self;
        let value = ValueVisitor { pointer: Pointer::ROOT, repeated: &mut repeated, meter, lengths };
        let value = value.deserialize(deserializer)?;
        Ok(Document { value, repeated })
    }
}

/// Reads an array. It keeps `most` elements and one more, because an element needs much more memory than its text.
pub(super) struct Elements<'a> {
    pub(super) most: usize,
    pub(super) meter: &'a mut Meter,
    pub(super) lengths: Lengths,
}

impl<'de> Visitor<'de> for Elements<'_> {
    type Value = Vec<Document>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<Vec<Document>, A::Error> {
        let mut kept = Vec::new();
        // That of this array, which keeps few elements.
        self.lengths.next();
        while kept.len() <= self.most {
            let metered = Metered { meter: self.meter, lengths: &mut self.lengths };
            let Some(element) = elements.next_element_seed(metered)? else { return Ok(kept) };
            kept.push(element);
        }
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(kept)
    }
}

/// Reads one value. The parser bounds the depth.
struct ValueVisitor<'a> {
    pointer: Pointer<'a>,
    repeated: &'a mut Vec<String>,
    meter: &'a mut Meter,
    lengths: &'a mut Lengths,
}

impl ValueVisitor<'_> {
    fn at<'b>(&'b mut self, pointer: Pointer<'b>) -> ValueVisitor<'b> {
        ValueVisitor { pointer, repeated: self.repeated, meter: self.meter, lengths: self.lengths }
    }

    fn take<E: de::Error>(&mut self, bytes: usize) -> Result<(), E> {
        if self.meter.take(bytes) { Ok(()) } else { Err(E::custom(NO_MEMORY)) }
    }

    /// A list with room for so many elements.
    fn list<T, E: de::Error>(&mut self, length: usize) -> Result<Vec<T>, E> {
        self.take(length * size_of::<T>())?;
        Ok(Vec::with_capacity(length))
    }

    /// Adds an element. Only a list of unknown length grows.
    fn push<T, E: de::Error>(&mut self, list: &mut Vec<T>, element: T) -> Result<(), E> {
        if list.len() == list.capacity() {
            self.take(list.len().max(4) * size_of::<T>())?;
        }
        list.push(element);
        Ok(())
    }

    /// Finds the members whose names other members before them have.
    fn find_repeated<E: de::Error>(&mut self, members: &[Member]) -> Result<(), E> {
        let mut repeated: Vec<usize> = if members.len() <= FEW {
            let is_repeated =
                |index: &usize| members[..*index].iter().any(|other| other.name == members[*index].name);
            (1..members.len()).filter(is_repeated).collect()
        } else {
            self.take(2 * members.len() * size_of::<usize>())?;
            let mut sorted: Vec<usize> = (0..members.len()).collect();
            sorted.sort_by_key(|index| &members[*index].name);
            sorted
                .windows(2)
                .filter(|pair| members[pair[0]].name == members[pair[1]].name)
                .map(|pair| pair[1])
                .collect()
        };
        repeated.sort_unstable();
        let room = MOST_MISTAKES.saturating_sub(self.repeated.len());
        let place = |index: usize| short(self.pointer.member(&members[index].name), LONGEST_POINTER);
        self.repeated.extend(repeated.into_iter().take(room).map(place));
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for ValueVisitor<'_> {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueVisitor<'_> {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        // The parser accepts only finite numbers.
        Ok(Number::from_f64(value).map_or(Json::Null, Json::Number))
    }

    fn visit_str<E: de::Error>(mut self, value: &str) -> Result<Json, E> {
        self.take(value.len())?;
        Ok(Json::String(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<Json, A::Error> {
        let length = self.lengths.next().unwrap_or_default();
        let parent = self.pointer;
        let mut numbers: Vec<Number> = Vec::new();
        let mut other = loop {
            match elements.next_element_seed(self.at(parent.element(numbers.len())))? {
                Some(Json::Number(number)) => {
                    if numbers.is_empty() {
                        numbers = self.list(length)?;
                    }
                    self.push(&mut numbers, number)?;
                }
                None if numbers.is_empty() => return Ok(Json::List([].into())),
                None => return Ok(Json::Numbers(numbers.into())),
                Some(other) => break Some(other),
            }
        };
        let mut list = self.list(length.max(numbers.len() + 1))?;
        list.extend(numbers.into_iter().map(Json::Number));
        while let Some(value) = other {
            self.push(&mut list, value)?;
            other = elements.next_element_seed(self.at(parent.element(list.len())))?;
        }
        Ok(Json::List(list.into()))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut fields: A) -> Result<Json, A::Error> {
        let length = self.lengths.next().unwrap_or_default();
        let mut members = self.list(length)?;
        let parent = self.pointer;
        while let Some(name) = fields.next_key::<Box<str>>()? {
            self.take(name.len())?;
            let value = fields.next_value_seed(self.at(parent.member(&name)))?;
            self.push(&mut members, Member { name, value })?;
        }
        self.find_repeated(&members)?;
        Ok(Json::Object(members.into()))
    }
}
