//! JSON of clients: UTF-8, and no member twice. serde_json alone keeps the last of two members with the same name, so two
//! programs could read two different requests from the same bytes. RFC 7493, section 2.3, forbids such members for that reason.

mod lengths;
mod value;

use serde::de::{DeserializeSeed as _, Deserializer as _, Error as _, IgnoredAny};
use tepal_shared::{
    json::{Json, replace_large},
    tensor::pointer::Pointer,
};

use self::{
    lengths::Lengths,
    value::{Document, Elements, Metered, NO_MEMORY},
};
use crate::{
    error::{ApiError, LONGEST_POINTER, short::short},
    http::budget::Meter,
};

/// Bytes as one JSON value.
pub(crate) fn parse(bytes: &[u8], meter: &mut Meter) -> Result<Json, ApiError> {
    let whole = text(bytes)?;
    let document = read(whole, meter, |text, meter| {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let mut lengths = lengths(text, meter)?;
        let document = Metered { meter, lengths: &mut lengths }.deserialize(&mut deserializer)?;
        deserializer.end().map(|()| document)
    })?;
    document.map_err(|error| not_json(whole, &error))?.value()
}

/// The elements of a JSON array, each with its own error; `None` if the bytes are JSON, but not an array. At most `most` elements
/// and one more are kept.
pub(crate) fn parse_list(
    bytes: &[u8],
    most: usize,
    meter: &mut Meter,
) -> Result<Option<Vec<Result<Json, ApiError>>>, ApiError> {
    let whole = text(bytes)?;
    let elements = read(whole, meter, |text, meter| {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let lengths = lengths(text, meter)?;
        let elements = deserializer.deserialize_seq(Elements { most, meter, lengths })?;
        deserializer.end().map(|()| elements)
    })?;
    match elements {
        Ok(elements) => Ok(Some(elements.into_iter().map(Document::value).collect())),
        // It is not an array, or not JSON.
        Err(error) if error.is_data() => parse(bytes, meter).map(|_| None),
        Err(error) => Err(not_json(whole, &error)),
    }
}

/// The lengths of the lists and objects, if memory is counted; those of a short text may grow.
fn lengths(text: &str, meter: &mut Meter) -> serde_json::Result<Lengths> {
    if !meter.is_on() {
        return Ok(Lengths::default());
    }
    let lengths = Lengths::of(text);
    if meter.take(lengths.bytes()) { Ok(lengths) } else { Err(serde_json::Error::custom(NO_MEMORY)) }
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

/// Some libraries write NaN and infinity as words, which no JSON has (RFC 8259, section 6).
fn not_json(text: &str, error: &serde_json::Error) -> ApiError {
    let hint = if is_word(text, error).unwrap_or_default() {
        r#"; write NaN, Infinity and -Infinity as strings, as in "NaN""#
    } else {
        ""
    };
    ApiError::NotJson(format!("{error}{hint}"))
}

/// Whether a word for a number is where the error is.
fn is_word(text: &str, error: &serde_json::Error) -> Option<bool> {
    let line = text.split('\n').nth(error.line().checked_sub(1)?)?;
    let rest = line.as_bytes().get(error.column().checked_sub(1)?..)?;
    Some([&b"NaN"[..], b"Infinity"].into_iter().any(|word| rest.starts_with(word)))
}

/// A JSON Pointer to a member of the body (RFC 6901, section 3). A long one is cut.
pub(crate) fn pointer_to(name: &str) -> String {
    short(Pointer::ROOT.member(name), LONGEST_POINTER)
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use serde_json::Value;
    use tepal_shared::json::JsonRef;

    use super::*;
    use crate::{error::MOST_MISTAKES, http::budget::Budget};

    fn value(json: &Json) -> Value {
        serde_json::to_value(JsonRef::from(json)).unwrap()
    }

    /// Reads with and without counting.
    fn read_one(bytes: &[u8]) -> Result<Value, ApiError> {
        let read = parse(bytes, &mut Meter::off()).map(|json| value(&json));
        let counted = parse(bytes, &mut Meter::on(Budget::new(0, 1 << 20).share())).map(|json| value(&json));
        assert_eq!(format!("{read:?}"), format!("{counted:?}"));
        read
    }

    fn read_many(bytes: &[u8], most: usize) -> Result<Option<Vec<Result<Value, ApiError>>>, ApiError> {
        let list = parse_list(bytes, most, &mut Meter::off())?;
        Ok(list.map(|list| list.into_iter().map(|json| Ok(value(&json?))).collect()))
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
            assert!(is_enough(60 * text.len()), "{}", &text[..20]);
            assert!(!is_enough(7 * text.len()), "{}", &text[..20]);
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
        let words = r#"; write NaN, Infinity and -Infinity as strings, as in "NaN""#;
        for (body, error) in [
            ("{\"data\": [[NaN]]}", "expected value at line 1 column 12"),
            ("[1,\n -Infinity]", "invalid number at line 2 column 3"),
            ("Infinity", "expected value at line 1 column 1"),
        ] {
            assert_eq!(why(read_one(body.as_bytes())), format!("{error}{words}"));
        }
        assert_eq!(why(read_one(b"[\"NaN\", nan]")), "expected ident at line 1 column 10");
        assert_eq!(why(read_one(b"{\n\"data\": 1e999, 1}")), "key must be a string at line 2 column 16");
        assert_eq!(why(read_one(b"[\xff]")), "byte 1 is not UTF-8");
        assert!(why(read_one("[".repeat(200).as_bytes())).starts_with("recursion limit exceeded"));
        let deep = format!("{}1e400{}", "[".repeat(127), "]".repeat(127));
        assert_eq!(why(read_one(deep.as_bytes())), "number out of range at line 1 column 132");
    }

    #[test]
    fn a_number_beyond_a_64_bit_float_is_one_wrong_value() {
        let body = read_one(br#"{"data": [[1e400, 2]], "x": -1e400}"#).unwrap();
        assert_eq!(
            (JsonRef::from(&body["data"][0][0]).large(), JsonRef::from(&body["x"]).large()),
            (Some("1e400"), Some("-1e400"))
        );
        assert_eq!(body["data"][0][1], 2);
        assert_eq!(repeated(read_one(br#"{"a": 1e400, "a": 1e400}"#)), ["/a"]);
        let list = read_many(b"[1, 1e400, 3]", 3).unwrap().unwrap();
        let list: Vec<Value> = list.into_iter().map(Result::unwrap).collect();
        assert_eq!(
            (&list[0], JsonRef::from(&list[1]).large(), &list[2]),
            (&Value::from(1), Some("1e400"), &Value::from(3))
        );
        assert!(read_many(b"{\"a\": 1e400}", 3).unwrap().is_none());
    }

    #[test]
    fn values_are_those_of_serde_json() {
        for text in [
            r#" {"b": [null, true, -1, 18446744073709551615, 1.5, -0.0, 1e-400, "\u00e9"], "a": {}, "": []} "#,
            "[[1, 2.5, -3], [1, 2, null, 3], [[]], [true, 1], [{}, 1, {\"a\": [0]}]]",
        ] {
            let expected: Value = serde_json::from_str(text).unwrap();
            assert_eq!(read_one(text.as_bytes()).unwrap().to_string(), expected.to_string());
        }
    }

    #[test]
    fn a_repeated_member_is_reported_with_its_pointer() {
        assert_eq!(repeated(read_one(br#"{"data": 1, "data": 1}"#)), ["/data"]);
        assert_eq!(repeated(read_one(br#"{"a": 1, "\u0061": 2, "a": 3}"#)), ["/a", "/a"]);
        assert_eq!(repeated(read_one(br#"{"a/b": [0, {"~": 1, "~": 2}]}"#)), ["/a~1b/1/~0"]);
        let wide: String = (0..100).map(|number| format!("\"{number}\": 0,")).collect();
        assert_eq!(
            repeated(read_one(format!("{{{wide} \"70\": 0, \"7\": [], \"7\": 1}}").as_bytes())),
            ["/70", "/7", "/7"]
        );
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
