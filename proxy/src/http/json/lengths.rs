//! The lengths of the lists of a document, before it is parsed. A list of known length never grows: growing takes up to three times
//! its memory.

use std::vec::IntoIter;

/// The parser refuses deeper documents.
const DEEPEST: usize = 128;

/// The lengths of lists, in the order in which they begin.
#[derive(Default)]
pub(super) struct Lengths(IntoIter<u32>);

impl Lengths {
    /// Counts the elements of each list. Of a text that is not JSON, the lengths mean nothing.
    pub(super) fn of(text: &str) -> Self {
        let mut lengths: Vec<u32> = Vec::new();
        // The lists and objects that have begun; of a list, its number.
        let mut open: Vec<Option<usize>> = Vec::new();
        // Whether the next byte of a value begins an element.
        let mut begins = true;
        let mut bytes = text.bytes();
        while let Some(byte) = bytes.next() {
            if begins && !matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b',' | b']' | b'}') {
                begins = false;
                if let Some(Some(list)) = open.last() {
                    lengths[*list] += 1;
                }
            }
            match byte {
                b'[' => {
                    open.push(Some(lengths.len()));
                    lengths.push(0);
                    begins = true;
                }
                b'{' => open.push(None),
                b']' | b'}' => {
                    open.pop();
                    begins = false;
                }
                b',' => begins = true,
                b'"' => skip_string(&mut bytes),
                _ => {}
            }
            if open.len() > DEEPEST {
                break;
            }
        }
        Self(lengths.into_iter())
    }

    /// Bytes that they take.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(self.0.as_slice())
    }

    /// The length of the next list; `None` if it is unknown.
    pub(super) fn next(&mut self) -> Option<usize> {
        self.0.next().and_then(|length| usize::try_from(length).ok())
    }
}

fn skip_string(bytes: &mut std::str::Bytes<'_>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => _ = bytes.next(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// The lengths of the lists of a value, in the order in which they begin.
    fn parsed(value: &Value, lengths: &mut Vec<u32>) {
        match value {
            Value::Array(elements) => {
                lengths.push(u32::try_from(elements.len()).unwrap());
                elements.iter().for_each(|element| parsed(element, lengths));
            }
            Value::Object(members) => members.values().for_each(|member| parsed(member, lengths)),
            _ => {}
        }
    }

    #[test]
    fn the_elements_of_each_list_are_counted() {
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
        assert_eq!(Lengths::of("[,,,1,,").0.as_slice(), [1]);
        for text in ["", "]", "}]", "[", "[,", r#"["a"#, r#"["\"#, "[1]]", "{[}", &"[".repeat(1 << 20)] {
            assert!(Lengths::of(text).0.len() <= DEEPEST + 1, "{text:.20}");
        }
    }
}
