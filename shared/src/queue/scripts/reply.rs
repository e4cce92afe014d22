//! Reads the reply of a script, part by part.

use std::str::FromStr;

use redis::Value;

use crate::queue::{error::StoreError, scripts::NamedScript};

/// The parts of a reply, in order.
pub(crate) struct Reply<'a> {
    pub(crate) script: &'a NamedScript,
    parts: std::vec::IntoIter<Value>,
}

impl<'a> Reply<'a> {
    pub(crate) fn new(script: &'a NamedScript, value: Value) -> Result<Self, StoreError> {
        match value {
            Value::Array(parts) => Ok(Self { script, parts: parts.into_iter() }),
            other => Err(script.unexpected(format!("{other:?} instead of a list"))),
        }
    }

    /// Reads the outcome's word.
    pub(crate) fn word(&mut self) -> Result<String, StoreError> {
        self.text("the outcome")
    }

    /// Reads the outcome's word, which must be this one.
    pub(crate) fn expect(&mut self, word: &str) -> Result<(), StoreError> {
        match self.word()? {
            given if given == word => Ok(()),
            given => self.unknown(&given),
        }
    }

    pub(crate) fn text(&mut self, what: &str) -> Result<String, StoreError> {
        self.script.text(self.parts.next(), what)
    }

    pub(crate) fn int(&mut self, what: &str) -> Result<i64, StoreError> {
        self.script.int(self.parts.next(), what)
    }

    pub(crate) fn count(&mut self, what: &str) -> Result<u64, StoreError> {
        self.script.count(self.parts.next(), what)
    }

    pub(crate) fn parsed<T: FromStr>(&mut self, what: &str) -> Result<T, StoreError> {
        self.script.parsed(self.parts.next(), what)
    }

    /// A part that is a list of values.
    pub(crate) fn values(&mut self, what: &str) -> Result<Vec<Value>, StoreError> {
        match self.parts.next() {
            Some(Value::Array(values)) => Ok(values),
            other => Err(self.script.unexpected(format!("{other:?} instead of {what}"))),
        }
    }

    pub(crate) fn list(&mut self, what: &str) -> Result<Vec<Reply<'a>>, StoreError> {
        match self.parts.next() {
            Some(Value::Array(items)) => {
                items.into_iter().map(|item| Reply::new(self.script, item)).collect()
            }
            other => Err(self.script.unexpected(format!("{other:?} instead of {what}"))),
        }
    }

    /// A part that is an outcome's word, or a list that begins with it.
    pub(crate) fn outcome(&mut self) -> Result<Reply<'a>, StoreError> {
        match self.parts.next() {
            Some(Value::Array(parts)) => Ok(Self { script: self.script, parts: parts.into_iter() }),
            Some(word) => Ok(Self { script: self.script, parts: vec![word].into_iter() }),
            None => Err(self.script.unexpected("nothing instead of an outcome")),
        }
    }

    pub(crate) fn texts(&mut self, what: &str) -> Result<Vec<String>, StoreError> {
        match self.parts.next() {
            Some(Value::Array(parts)) => {
                let count = parts.len();
                let mut texts = Reply { script: self.script, parts: parts.into_iter() };
                (0..count).map(|_| texts.text(what)).collect()
            }
            other => Err(self.script.unexpected(format!("{other:?} instead of {what}"))),
        }
    }

    pub(crate) fn unknown<T>(&self, word: &str) -> Result<T, StoreError> {
        Err(self.script.unexpected(format!("unknown outcome `{word}`")))
    }
}

/// Values of a reply. Each read names what it expects, for the error.
impl NamedScript {
    pub(crate) fn text(&self, value: Option<Value>, what: &str) -> Result<String, StoreError> {
        match value {
            Some(Value::BulkString(bytes)) => {
                String::from_utf8(bytes).map_err(|_| self.unexpected(format!("{what} is not UTF-8")))
            }
            Some(Value::SimpleString(text)) => Ok(text),
            other => Err(self.unexpected(format!("{other:?} instead of {what}"))),
        }
    }

    pub(crate) fn bytes(&self, value: Option<Value>, what: &str) -> Result<Vec<u8>, StoreError> {
        match value {
            Some(Value::BulkString(bytes)) => Ok(bytes),
            other => Err(self.unexpected(format!("{other:?} instead of {what}"))),
        }
    }

    pub(crate) fn optional_text(
        &self,
        value: Option<Value>,
        what: &str,
    ) -> Result<Option<String>, StoreError> {
        Ok(Some(self.text(value, what)?).filter(|text| !text.is_empty()))
    }

    pub(crate) fn int(&self, value: Option<Value>, what: &str) -> Result<i64, StoreError> {
        match value {
            Some(Value::Int(number)) => Ok(number),
            other => Err(self.unexpected(format!("{other:?} instead of {what}"))),
        }
    }

    pub(crate) fn count(&self, value: Option<Value>, what: &str) -> Result<u64, StoreError> {
        let number = self.int(value, what)?;
        u64::try_from(number).map_err(|_| self.unexpected(format!("{number} as {what}")))
    }

    pub(crate) fn parsed<T: FromStr>(&self, value: Option<Value>, what: &str) -> Result<T, StoreError> {
        let text = self.text(value, what)?;
        text.parse().map_err(|_| self.unexpected(format!("`{text}` as {what}")))
    }
}
