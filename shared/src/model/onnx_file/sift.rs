//! Reads from an ONNX file only the fields that `onnx.proto` of `tepal-proto` lists. Elements of tensors, which may take gigabytes,
//! are skipped and never kept in memory.

use std::io::{self, BufRead as _, BufReader, Read, Seek};

/// As many messages in each other as prost accepts.
const DEEPEST: usize = 100;

/// The bytes are no ONNX file.
#[derive(Debug, thiserror::Error)]
pub(super) enum Damage {
    /// The file cannot be read.
    #[error("reading failed")]
    Io(#[source] io::Error),
    /// The file ends within a field.
    #[error("it has {has} bytes, but needs at least {needs}")]
    Truncated {
        /// Bytes of the file.
        has: u64,
        /// Bytes up to the end of the field.
        needs: u64,
    },
    /// No field of a protobuf message can begin so (protobuf.dev/programming-guides/encoding).
    #[error("byte {at} begins no field of an ONNX file")]
    Malformed {
        /// Its place in the file.
        at: u64,
    },
    /// Messages are nested too deeply.
    #[error("byte {at} begins a graph within more than {DEEPEST} others")]
    TooDeep {
        /// Its place in the file.
        at: u64,
    },
}

/// A message that has fields to skip, or messages within that do.
#[derive(Clone, Copy)]
enum Message {
    Model,
    Graph,
    Function,
    Node,
    Attribute,
    Tensor,
    SparseTensor,
}

/// What becomes of a field.
enum Use {
    Skip,
    Keep,
    /// Keep some fields of the message that it contains.
    Sift(Message),
}

impl Message {
    /// What becomes of the field with this number. Those of `onnx.proto` are kept.
    fn field(self, number: u64) -> Use {
        match (self, number) {
            (Self::Model, 7) | (Self::Attribute, 6 | 11) => Use::Sift(Self::Graph),
            (Self::Model, 25) => Use::Sift(Self::Function),
            (Self::Graph, 1) | (Self::Function, 7) => Use::Sift(Self::Node),
            (Self::Node, 5) => Use::Sift(Self::Attribute),
            (Self::Graph, 5) | (Self::Attribute, 5 | 10) | (Self::SparseTensor, 1) => Use::Sift(Self::Tensor),
            (Self::Graph, 15) => Use::Sift(Self::SparseTensor),
            (Self::Model, 8)
            | (Self::Graph, 11 | 12)
            | (Self::Function, 1 | 10)
            | (Self::Node, 4 | 7)
            | (Self::Tensor, 8 | 13 | 14) => Use::Keep,
            _ => Use::Skip,
        }
    }
}

/// The encoded `onnx.ModelProto` of `tepal-proto`, from a file of this many bytes.
pub(super) fn model(source: impl Read + Seek, bytes: u64) -> Result<Vec<u8>, Damage> {
    let mut sieve = Sieve { source: BufReader::new(source), at: 0, size: bytes };
    let mut kept = Vec::new();
    sieve.message(Message::Model, bytes, &mut kept, 0)?;
    Ok(kept)
}

struct Sieve<R> {
    source: BufReader<R>,
    /// Place of the next byte.
    at: u64,
    size: u64,
}

impl<R: Read + Seek> Sieve<R> {
    /// Reads a message up to `end`.
    fn message(
        &mut self,
        message: Message,
        end: u64,
        kept: &mut Vec<u8>,
        depth: usize,
    ) -> Result<(), Damage> {
        while self.at < end {
            let begin = self.at;
            let tag = self.varint(end)?;
            match tag & 7 {
                // Field numbers begin with 1. Files that were not copied to their end often have zeros there.
                _ if tag < 8 => return Err(Damage::Malformed { at: begin }),
                2 => self.delimited(message, tag, end, kept, depth)?,
                wire_type => self.scalar(wire_type, begin, end, |value| {
                    if matches!(message.field(tag >> 3), Use::Keep) {
                        put_varint(tag, kept);
                        kept.extend_from_slice(value);
                    }
                })?,
            }
        }
        Ok(())
    }

    /// Reads a field with a length: text, bytes, a message or a packed list.
    fn delimited(
        &mut self,
        message: Message,
        tag: u64,
        end: u64,
        kept: &mut Vec<u8>,
        depth: usize,
    ) -> Result<(), Damage> {
        let begin = self.at;
        let length = self.varint(end)?;
        let field_end = self.end_of(length, begin, end)?;
        match message.field(tag >> 3) {
            Use::Skip => self.skip(length)?,
            Use::Keep => {
                put_varint(tag, kept);
                put_varint(length, kept);
                self.copy(length, kept)?;
            }
            Use::Sift(_) if depth == DEEPEST => return Err(Damage::TooDeep { at: begin }),
            Use::Sift(inner) => {
                let mut content = Vec::new();
                self.message(inner, field_end, &mut content, depth + 1)?;
                put_varint(tag, kept);
                put_varint(content.len() as u64, kept);
                kept.append(&mut content);
            }
        }
        Ok(())
    }

    /// Reads a field without a length, and passes on its bytes.
    fn scalar(
        &mut self,
        wire_type: u64,
        begin: u64,
        end: u64,
        keep: impl FnOnce(&[u8]),
    ) -> Result<(), Damage> {
        let mut value = Vec::new();
        match wire_type {
            0 => put_varint(self.varint(end)?, &mut value),
            1 | 5 => {
                let length = if wire_type == 1 { 8 } else { 4 };
                self.end_of(length, begin, end)?;
                self.copy(length, &mut value)?;
            }
            _ => return Err(Damage::Malformed { at: begin }),
        }
        keep(&value);
        Ok(())
    }

    /// Where a field of this length ends, if it does not exceed its message, which ends at `end`.
    fn end_of(&self, length: u64, begin: u64, end: u64) -> Result<u64, Damage> {
        let needs = self.at.saturating_add(length);
        match needs {
            needs if needs <= end => Ok(needs),
            // Only the file itself can be too short. A message within has a length that fits.
            needs if end == self.size => Err(Damage::Truncated { has: end, needs }),
            _ => Err(Damage::Malformed { at: begin }),
        }
    }

    fn varint(&mut self, end: u64) -> Result<u64, Damage> {
        let begin = self.at;
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            self.end_of(1, begin, end)?;
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Damage::Malformed { at: begin })
    }

    fn byte(&mut self) -> Result<u8, Damage> {
        let byte = self.source.fill_buf().map_err(Damage::Io)?.first().copied();
        let byte = byte.ok_or_else(|| self.shortened())?;
        self.source.consume(1);
        self.at += 1;
        Ok(byte)
    }

    fn skip(&mut self, length: u64) -> Result<(), Damage> {
        let offset = i64::try_from(length).map_err(|_| Damage::Malformed { at: self.at })?;
        self.source.seek_relative(offset).map_err(Damage::Io)?;
        self.at += length;
        Ok(())
    }

    fn copy(&mut self, length: u64, kept: &mut Vec<u8>) -> Result<(), Damage> {
        let copied = (&mut self.source).take(length).read_to_end(kept).map_err(Damage::Io)? as u64;
        self.at += copied;
        if copied == length { Ok(()) } else { Err(self.shortened()) }
    }

    /// The file became shorter while it was read.
    fn shortened(&self) -> Damage {
        Damage::Truncated { has: self.at, needs: self.size }
    }
}

fn put_varint(mut value: u64, kept: &mut Vec<u8>) {
    while value >= 0x80 {
        kept.push(value as u8 | 0x80);
        value >>= 7;
    }
    kept.push(value as u8);
}
