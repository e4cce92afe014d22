//! Text of clients in answers. It is cut to a bound, measured in bytes of JSON.

use std::fmt::{self, Display, Write};

/// Collects text up to a bound.
struct Short {
    text: String,
    /// Bytes of JSON.
    left: usize,
}

impl Write for Short {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for letter in text.chars() {
            let Some(left) = self.left.checked_sub(json_bytes(letter)) else {
                self.text.push_str("...");
                return Err(fmt::Error);
            };
            self.left = left;
            self.text.push(letter);
        }
        Ok(())
    }
}

/// The text, if it needs at most `most` bytes in JSON, else its beginning and three dots.
pub(crate) fn short(text: impl Display, most: usize) -> String {
    let mut short = Short { text: String::new(), left: most };
    // It fails when the bound is reached.
    let _ = write!(short, "{text}");
    short.text
}

/// How many bytes JSON needs for it, as serde_json writes it.
fn json_bytes(letter: char) -> usize {
    match letter {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0'..='\u{1f}' => 6,
        _ => letter.len_utf8(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_to_what_it_takes_in_json() {
        assert_eq!(short("abc", 3), "abc");
        assert_eq!(short("abcd", 3), "abc...");
        assert_eq!(short(short("abcd", 3), 3), "abc...");
        for text in ["\u{1}", "\"", "\\", "\n", "\u{c}", "\u{7f}", "\u{e9}", "\u{1f980}"] {
            let cut = short(text.repeat(1000), 100);
            let json = serde_json::to_string(&cut).unwrap().len() - 2;
            assert!((90..=103).contains(&json), "{json} {cut:?}");
        }
    }
}
