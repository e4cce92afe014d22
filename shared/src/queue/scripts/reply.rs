//! Reading a script's reply, part by part.

use redis::Value;

use super::NamedScript;
use crate::queue::error::StoreError;

/// Reads a reply's parts in order. Each read names what it expects, for the error.
pub(crate) struct Reply<'a> {
    pub(super) script: &'a NamedScript,
    parts: std::vec::IntoIter<Value>,
}

impl<'a> Reply<'a> {
    pub(crate) fn new(script: &'a NamedScript, value: Value) -> Result<Self, StoreError> {
        match value {
            Value::Array(parts) => Ok(Self { script, parts: parts.into_iter() }),
            other => Err(script.unexpected(format!("{other:?} instead of a list"))),
        }
    }

    /// The outcome's word.
    pub(crate) fn word(&mut self) -> Result<String, StoreError> {
        self.text("the outcome")
    }

    pub(crate) fn text(&mut self, what: &str) -> Result<String, StoreError> {
        match self.parts.next() {
            Some(Value::BulkString(bytes)) => {
                String::from_utf8(bytes).map_err(|_| self.script.unexpected(format!("{what} is not UTF-8")))
            }
            Some(Value::SimpleString(text)) => Ok(text),
            other => Err(self.script.unexpected(format!("{other:?} instead of {what}"))),
        }
    }

    pub(super) fn optional_text(&mut self, what: &str) -> Result<Option<String>, StoreError> {
        Ok(Some(self.text(what)?).filter(|text| !text.is_empty()))
    }

    pub(super) fn int(&mut self, what: &str) -> Result<i64, StoreError> {
        match self.parts.next() {
            Some(Value::Int(number)) => Ok(number),
            other => Err(self.script.unexpected(format!("{other:?} instead of {what}"))),
        }
    }

    pub(crate) fn count(&mut self, what: &str) -> Result<u64, StoreError> {
        let number = self.int(what)?;
        u64::try_from(number).map_err(|_| self.script.unexpected(format!("{number} as {what}")))
    }

    pub(super) fn list(&mut self, what: &str) -> Result<Vec<Reply<'a>>, StoreError> {
        match self.parts.next() {
            Some(Value::Array(items)) => {
                items.into_iter().map(|item| Reply::new(self.script, item)).collect()
            }
            other => Err(self.script.unexpected(format!("{other:?} instead of {what}"))),
        }
    }

    /// Whether all parts are read.
    pub(super) fn is_empty(&self) -> bool {
        self.parts.len() == 0
    }

    /// A part that is an outcome's word, or a list that begins with it.
    pub(super) fn outcome(&mut self) -> Result<Reply<'a>, StoreError> {
        match self.parts.next() {
            Some(Value::Array(parts)) => Ok(Self { script: self.script, parts: parts.into_iter() }),
            Some(word) => Ok(Self { script: self.script, parts: vec![word].into_iter() }),
            None => Err(self.script.unexpected("nothing instead of an outcome")),
        }
    }

    /// A part that has parts of its own.
    pub(super) fn nested(&mut self, what: &str) -> Result<Reply<'a>, StoreError> {
        match self.parts.next() {
            Some(value) => Self::new(self.script, value),
            None => Err(self.script.unexpected(format!("nothing instead of {what}"))),
        }
    }

    pub(super) fn texts(&mut self, what: &str) -> Result<Vec<String>, StoreError> {
        match self.parts.next() {
            Some(Value::Array(parts)) => {
                let count = parts.len();
                let mut texts = Reply { script: self.script, parts: parts.into_iter() };
                (0..count).map(|_| texts.text(what)).collect()
            }
            other => Err(self.script.unexpected(format!("{other:?} instead of {what}"))),
        }
    }

    pub(super) fn parsed<T: std::str::FromStr>(&mut self, what: &str) -> Result<T, StoreError> {
        let text = self.text(what)?;
        text.parse().map_err(|_| self.script.unexpected(format!("`{text}` as {what}")))
    }

    pub(crate) fn unknown<T>(&self, word: &str) -> Result<T, StoreError> {
        Err(self.script.unexpected(format!("unknown outcome `{word}`")))
    }
}
