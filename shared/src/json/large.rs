//! Numbers in JSON that no 64-bit float holds, such as 1e400. The parser refuses a whole document because of one of them.
//! [`replace_large`] replaces each by an object that is valid nowhere. So the reader of the document refuses that one value, and can
//! show the text that the client sent.

/// The only member of such an object. If a client sends such an object, it is refused as well.
pub(super) const MARK: &str = "beyond f64";
/// Number of bytes of a number that are shown.
const LONGEST: usize = 40;

/// Replaces each number in the JSON `text` that is too large; `None` if there is none. Takes linear time. Use it for texts that the
/// parser has refused.
#[must_use]
pub fn replace_large(text: &str) -> Option<String> {
    let mut replaced = String::new();
    let (mut copied, mut at) = (0, 0);
    while let Some(byte) = text.as_bytes().get(at) {
        match byte {
            b'"' => at += string_length(&text.as_bytes()[at..]),
            b'-' | b'0'..=b'9' => {
                let end = at + number_length(&text.as_bytes()[at..]);
                if is_large(&text[at..end]) {
                    replaced.push_str(&text[copied..at]);
                    replaced.push_str(&format!(r#"{{"{MARK}":"{}"}}"#, shortened(&text[at..end])));
                    copied = end;
                }
                at = end;
            }
            _ => at += 1,
        }
    }
    replaced.push_str(&text[copied..]);
    (copied > 0).then_some(replaced)
}

fn is_large(number: &str) -> bool {
    number.parse::<f64>().is_ok_and(f64::is_infinite)
}

fn number_length(bytes: &[u8]) -> usize {
    let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
    bytes.iter().position(|byte| !is_part(byte)).unwrap_or(bytes.len())
}

/// With both quotation marks.
fn string_length(bytes: &[u8]) -> usize {
    let mut is_escaped = false;
    let is_end = |byte: &u8| {
        let ends = *byte == b'"' && !is_escaped;
        is_escaped = *byte == b'\\' && !is_escaped;
        ends
    };
    bytes[1..].iter().position(is_end).map_or(bytes.len(), |inner| inner + 2)
}

fn shortened(number: &str) -> String {
    match number.get(..LONGEST) {
        Some(start) if number.len() > LONGEST => format!("{start}..."),
        _ => number.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::{super::JsonRef, *};

    #[test]
    fn numbers_beyond_a_64_bit_float_are_replaced() {
        let huge = format!("1{}", "0".repeat(400));
        for number in ["1e400", "-1e400", "1E+309", "1.8e308", "12.5e99999999999", huge.as_str(), "0.1e400"] {
            let text = replace_large(&format!("[1, {number}, \"x\"]")).unwrap();
            let value: Value = serde_json::from_str(&text).unwrap();
            let replaced = JsonRef::from(&value[1]);
            assert_eq!(
                (replaced.large(), replaced.kind()),
                (Some(shortened(number).as_str()), "a number"),
                "{text}"
            );
            assert_eq!((&value[0], &value[2]), (&Value::from(1), &Value::from("x")));
        }
        assert_eq!(shortened(&huge), format!("1{}...", "0".repeat(39)));
    }

    #[test]
    fn nothing_else_is_replaced() {
        for text in [
            "",
            "[1e308, 1.7976931348623157e308, 1e-400, 0e400, -0.0, 18446744073709551616]",
            r#"{"1e400": "1e400", "a\\\"": "\" 1e400", "b\\\\": "\\\\"}"#,
            "[1e",
            "\"1e400",
            "-",
        ] {
            assert_eq!(replace_large(text), None, "{text}");
        }
        let text = replace_large(r#"{"a\\\"": 1e400, "\u00e9\\\\": -1e400}"#).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(JsonRef::from(&value["\u{e9}\\\\"]).large(), Some("-1e400"), "{text}");
    }
}
