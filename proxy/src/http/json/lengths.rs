//! The lengths of the lists and objects of a document, before it is parsed. A list of known length never grows: growing takes up to
//! three times its memory.

use std::vec::IntoIter;

/// The parser refuses deeper documents.
const DEEPEST: usize = 128;

/// The lengths of lists and objects, in the order in which they begin.
#[derive(Default)]
pub(super) struct Lengths(IntoIter<u32>);

impl Lengths {
    /// Counts the elements of each list and the members of each object. Of a text that is not JSON, the lengths mean nothing.
    pub(super) fn of(text: &str) -> Self {
        let text = text.as_bytes();
        let mut lengths: Vec<u32> = Vec::new();
        // The numbers of those that have begun.
        let mut open: Vec<usize> = Vec::new();
        let mut at = 0;
        while let Some(byte) = text.get(at) {
            match byte {
                b'[' | b'{' if open.len() < DEEPEST => {
                    open.push(lengths.len());
                    // What is not empty has one more element than commas.
                    lengths.push(u32::from(!is_empty(&text[at + 1..])));
                }
                b'[' | b'{' => break,
                b']' | b'}' => _ = open.pop(),
                b',' => open.last().into_iter().for_each(|number| lengths[*number] += 1),
                b'"' => at += length_of_string(&text[at + 1..]),
                _ => {}
            }
            at += 1;
        }
        Self(lengths.into_iter())
    }

    /// Bytes that they take.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(self.0.as_slice())
    }

    /// The length of the next one; `None` if it is unknown.
    pub(super) fn next(&mut self) -> Option<usize> {
        self.0.next().and_then(|length| usize::try_from(length).ok())
    }
}

/// Whether a list or an object ends with its first byte that is no whitespace.
fn is_empty(text: &[u8]) -> bool {
    matches!(text.trim_ascii_start().first(), Some(b']' | b'}'))
}

/// The rest of a string, with its closing quotation mark.
fn length_of_string(text: &[u8]) -> usize {
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        at += match byte {
            b'"' => return at + 1,
            b'\\' => 2,
            _ => 1,
        };
    }
    at
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// The lengths of the lists and objects of a value, in the order in which they begin.
    fn parsed(value: &Value, lengths: &mut Vec<u32>) {
        match value {
            Value::Array(elements) => {
                lengths.push(u32::try_from(elements.len()).unwrap());
                elements.iter().for_each(|element| parsed(element, lengths));
            }
            Value::Object(members) => {
                lengths.push(u32::try_from(members.len()).unwrap());
                members.values().for_each(|member| parsed(member, lengths));
            }
            _ => {}
        }
    }

    #[test]
    fn the_elements_of_each_list_and_the_members_of_each_object_are_counted() {
        for text in [
            "1",
            "[]",
            " [ \n ] ",
            "[1]",
            "[1, 2 ,3]",
            "[[],[[]],[[1],[2,3]], {}]",
            r#"{"a": [1, {"b": [], "c": [{"d": 1, "e": 2}, 3]}], "f": [null, true, -1.5e3, "x"]}"#,
            r#"["[1,2", "\"", "\\", "]", ",", "\\\",["]"#,
            r#"[{"a": 1, "b": [2, 3]}, ",", [","]]"#,
        ] {
            let mut expected = Vec::new();
            parsed(&serde_json::from_str(text).unwrap(), &mut expected);
            assert_eq!(Lengths::of(text).0.as_slice(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_not_json_is_counted_in_some_way() {
        assert_eq!(Lengths::of("[,,,1,,").0.as_slice(), [6]);
        for text in ["", "]", "}]", "[", "[,", r#"["a"#, r#"["\"#, "[1]]", "{[}", &"[".repeat(1 << 20)] {
            assert!(Lengths::of(text).0.len() <= DEEPEST, "{text:.20}");
        }
    }
}
