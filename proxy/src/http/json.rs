//! JSON of clients: UTF-8, and no member twice. serde_json alone keeps the last of two members with the same name, so two
//! programs could read two different requests from the same bytes. RFC 7493, section 2.3, forbids such members for that reason.

mod lengths;

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use tepal_shared::tensor::{number::replace_large, pointer::Pointer};

use self::lengths::Lengths;
use crate::{
    error::{ApiError, LONGEST_POINTER, MOST_MISTAKES, Mistake, short::short},
    http::budget::Meter,
};

/// Memory of a list element, and of a member without its name: the table of members grows in steps.
const ELEMENT: usize = size_of::<Value>();
const MEMBER: usize = 2 * (size_of::<(usize, String, Value)>() + size_of::<usize>());
/// The additional memory of the first member.
const FIRST_MEMBER: usize = 2 * MEMBER;

/// Bytes as one JSON value.
pub(crate) fn parse(bytes: &[u8], meter: &mut Meter) -> Result<Value, ApiError> {
    let document = read(text(bytes)?, meter, |text, meter| {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let mut lengths = lengths(text, meter)?;
        let document = Metered { meter, lengths: &mut lengths }.deserialize(&mut deserializer)?;
        deserializer.end().map(|()| document)
    })?;
    document.map_err(not_json)?.value()
}

/// The elements of a JSON array, each with its own error; `None` if the bytes are JSON, but not an array. At most `most` elements
/// and one more are kept.
pub(crate) fn parse_list(
    bytes: &[u8],
    most: usize,
    meter: &mut Meter,
) -> Result<Option<Vec<Result<Value, ApiError>>>, ApiError> {
    let elements = read(text(bytes)?, meter, |text, meter| {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let lengths = lengths(text, meter)?;
        let elements = deserializer.deserialize_seq(Elements { most, meter, lengths })?;
        deserializer.end().map(|()| elements)
    })?;
    match elements {
        Ok(elements) => Ok(Some(elements.into_iter().map(Document::value).collect())),
        // It is not an array, or not JSON.
        Err(error) if error.is_data() => parse(bytes, meter).map(|_| None),
        Err(error) => Err(not_json(error)),
    }
}

/// The lengths of the lists, if memory is counted; in a short text, their lists may grow.
fn lengths(text: &str, meter: &mut Meter) -> serde_json::Result<Lengths> {
    if !meter.is_on() {
        return Ok(Lengths::default());
    }
    let lengths = Lengths::of(text);
    if meter.take(lengths.bytes()) { Ok(lengths) } else { Err(no_memory()) }
}

/// Its text is never shown.
fn no_memory<E: de::Error>() -> E {
    E::custom("no memory is left")
}

/// Applies `parse` to the text. Numbers that no 64-bit float can hold are valid JSON, but the parser rejects all of them. So it
/// parses the text a second time with those numbers replaced.
fn read<T>(
    text: &str,
    meter: &mut Meter,
    parse: impl Fn(&str, &mut Meter) -> serde_json::Result<T>,
) -> Result<serde_json::Result<T>, ApiError> {
    let outcome = parse(text, meter).or_else(|error| {
        let replaced = if error.is_syntax() { replace_large(text) } else { None };
        let Some(replaced) = replaced.filter(|replaced| meter.take(replaced.len())) else {
            return Err(error);
        };
        // Positions of other errors differ in the replaced text.
        parse(&replaced, meter).map_err(|_| serde_json::from_str::<IgnoredAny>(text).err().unwrap_or(error))
    });
    meter.exceeded().map_or(Ok(outcome), |exceeded| Err(exceeded.into()))
}

fn text(bytes: &[u8]) -> Result<&str, ApiError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| ApiError::NotJson(format!("byte {} is not UTF-8", error.valid_up_to())))?;
    if text.is_empty() { Err(ApiError::NotJson("it is empty".to_owned())) } else { Ok(text) }
}

fn not_json(error: serde_json::Error) -> ApiError {
    ApiError::NotJson(error.to_string())
}

/// A JSON Pointer to a member of the body (RFC 6901, section 3). A long one is cut.
pub(crate) fn pointer_to(name: &str) -> String {
    short(Pointer::ROOT.member(name), LONGEST_POINTER)
}

/// A value, and pointers to its repeated members.
struct Document {
    value: Value,
    repeated: Vec<String>,
}

impl Document {
    fn value(self) -> Result<Value, ApiError> {
        if self.repeated.is_empty() {
            return Ok(self.value);
        }
        let mistake = |pointer| Mistake::at(pointer, "repeated", "must be given only once");
        Err(ApiError::Invalid(self.repeated.into_iter().map(mistake).collect()))
    }
}

/// Reads a document.
struct Metered<'a> {
    meter: &'a mut Meter,
    lengths: &'a mut Lengths,
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
struct Elements<'a> {
    most: usize,
    meter: &'a mut Meter,
    lengths: Lengths,
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
        if self.meter.take(bytes) { Ok(()) } else { Err(no_memory()) }
    }
}

impl<'de> DeserializeSeed<'de> for ValueVisitor<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueVisitor<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        // The parser accepts only finite numbers.
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: de::Error>(mut self, value: &str) -> Result<Value, E> {
        self.take(value.len())?;
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E: de::Error>(mut self, value: String) -> Result<Value, E> {
        self.take(value.len())?;
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<Value, A::Error> {
        let length = self.lengths.next().unwrap_or_default();
        self.take(length * ELEMENT)?;
        let mut list = Vec::with_capacity(length);
        let parent = self.pointer;
        while let Some(value) = elements.next_element_seed(self.at(parent.element(list.len())))? {
            if list.len() == list.capacity() {
                self.take((list.len().max(4)) * ELEMENT)?;
            }
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        let parent = self.pointer;
        while let Some(name) = members.next_key::<String>()? {
            let pointer = parent.member(&name);
            let value = members.next_value_seed(self.at(pointer))?;
            if fields.contains_key(&name) && self.repeated.len() < MOST_MISTAKES {
                self.repeated.push(short(pointer, LONGEST_POINTER));
            }
            self.take(name.len() + MEMBER + if fields.is_empty() { FIRST_MEMBER } else { 0 })?;
            fields.insert(name, value);
        }
        Ok(Value::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use tepal_shared::tensor::number::large;

    use super::*;
    use crate::http::budget::Budget;

    fn read_one(bytes: &[u8]) -> Result<Value, ApiError> {
        parse(bytes, &mut Meter::off())
    }

    fn read_many(bytes: &[u8], most: usize) -> Result<Option<Vec<Result<Value, ApiError>>>, ApiError> {
        parse_list(bytes, most, &mut Meter::off())
    }

    #[test]
    fn what_a_document_takes_is_counted_as_it_is_read() {
        let list = |element: &str| format!("[{}0]", element.repeat((1 << 17) / element.len()));
        for text in [list("0,"), list("[0],"), list("{\"\":0},"), list("[[[]]],"), list("1e400,")] {
            let is_enough = |bytes| {
                let mut meter = Meter::on(Budget::new(0, bytes).share());
                match parse(text.as_bytes(), &mut meter) {
                    Ok(_) => true,
                    Err(ApiError::BodyTakesTooMuch(all)) => all != bytes,
                    other => panic!("{other:?}"),
                }
            };
            assert!(is_enough(200 * text.len()), "{}", &text[..20]);
            assert!(!is_enough(8 * text.len()), "{}", &text[..20]);
        }
    }

    fn why(outcome: Result<impl fmt::Debug, ApiError>) -> String {
        match outcome {
            Err(ApiError::NotJson(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    fn repeated(outcome: Result<Value, ApiError>) -> Vec<String> {
        let Err(ApiError::Invalid(mistakes)) = outcome else { panic!("{outcome:?}") };
        assert!(mistakes.iter().all(|mistake| mistake.code == "repeated"));
        mistakes
            .into_iter()
            .map(|mistake| match mistake.location {
                crate::error::Location::Pointer(pointer) => pointer,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn invalid_json_is_reported_with_its_position() {
        assert_eq!(why(read_one(b"")), "it is empty");
        assert_eq!(why(read_one(b"{\"data\": [[NaN]]}")), "expected value at line 1 column 12");
        assert_eq!(why(read_one(b"{\n\"data\": 1e999, 1}")), "key must be a string at line 2 column 16");
        assert_eq!(why(read_one(b"[\xff]")), "byte 1 is not UTF-8");
        assert!(why(read_one("[".repeat(200).as_bytes())).starts_with("recursion limit exceeded"));
        let deep = format!("{}1e400{}", "[".repeat(127), "]".repeat(127));
        assert_eq!(why(read_one(deep.as_bytes())), "number out of range at line 1 column 132");
    }

    #[test]
    fn a_number_beyond_a_64_bit_float_is_one_wrong_value() {
        let body = read_one(br#"{"data": [[1e400, 2]], "x": -1e400}"#).unwrap();
        assert_eq!((large(&body["data"][0][0]), large(&body["x"])), (Some("1e400"), Some("-1e400")));
        assert_eq!(body["data"][0][1], 2);
        assert_eq!(repeated(read_one(br#"{"a": 1e400, "a": 1e400}"#)), ["/a"]);
        let list = read_many(b"[1, 1e400, 3]", 3).unwrap().unwrap();
        let list: Vec<Value> = list.into_iter().map(Result::unwrap).collect();
        assert_eq!((&list[0], large(&list[1]), &list[2]), (&Value::from(1), Some("1e400"), &Value::from(3)));
        assert!(read_many(b"{\"a\": 1e400}", 3).unwrap().is_none());
    }

    #[test]
    fn values_are_those_of_serde_json() {
        let text = r#" {"b": [null, true, -1, 18446744073709551615, 1.5, -0.0, 1e-400, "\u00e9"], "a": {}, "": []} "#;
        let expected: Value = serde_json::from_str(text).unwrap();
        assert_eq!(read_one(text.as_bytes()).unwrap().to_string(), expected.to_string());
    }

    #[test]
    fn a_repeated_member_is_reported_with_its_pointer() {
        assert_eq!(repeated(read_one(br#"{"data": 1, "data": 1}"#)), ["/data"]);
        assert_eq!(repeated(read_one(br#"{"a": 1, "\u0061": 2, "a": 3}"#)), ["/a", "/a"]);
        assert_eq!(repeated(read_one(br#"{"a/b": [0, {"~": 1, "~": 2}]}"#)), ["/a~1b/1/~0"]);
        let hundred = format!("{{{}\"x\": 0}}", "\"x\": 0,".repeat(99));
        assert_eq!(repeated(read_one(hundred.as_bytes())).len(), MOST_MISTAKES);
        assert!(read_one(br#"[{"a": 1}, {"a": 1}]"#).is_ok());
    }

    #[test]
    fn each_element_of_a_list_is_wrong_for_itself() {
        let list = read_many(br#"[{"a": 1}, {"a": 1, "a": 2}, 3, 4, 5]"#, 3).unwrap().unwrap();
        let outcomes: Vec<bool> = list.iter().map(Result::is_ok).collect();
        assert_eq!(outcomes, [true, false, true, true]);
        assert_eq!(repeated(list.into_iter().nth(1).unwrap()), ["/a"]);
        assert!(read_many(b"{}", 3).unwrap().is_none());
        assert_eq!(why(read_many(b"[1, ", 3)), "EOF while parsing a value at line 1 column 4");
        assert_eq!(why(read_many(b"{\"a\": ", 3)), "EOF while parsing a value at line 1 column 6");
    }
}
