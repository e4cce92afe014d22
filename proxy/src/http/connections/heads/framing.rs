//! Finds where heads begin and end in the bytes of a connection (RFC 9112, sections 2.1, 6 and 7.1). It parses only what frames a
//! message. At anything that the HTTP library rejects itself, it stops: the connection ends there.

/// Bytes kept of a line that arrives in pieces: enough for a header that frames a body.
const LONGEST_FRAMING: usize = 256;

/// Why a head is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A line ends with LF alone.
    BareLineFeed,
    /// A transfer coding other than chunked.
    TransferCoding,
    /// A header that frames the body is longer than any valid one.
    Framing,
}

/// Follows one connection.
#[derive(Debug, Default)]
pub(crate) struct Scanner {
    part: Part,
    head: Head,
}

/// In which part of a message the next byte is.
#[derive(Debug, Default)]
enum Part {
    #[default]
    Head,
    /// A body, and how much is left of it.
    Body(u64),
    /// A body in chunks.
    Chunks(Chunks),
    /// After something that the library rejects.
    Unknown,
}

/// The head that is being read.
#[derive(Debug, Default)]
struct Head {
    /// The beginning of an incomplete line, and its last byte so far.
    line: Vec<u8>,
    last: u8,
    /// Whether a non-empty line has ended. Empty lines may precede a request.
    is_begun: bool,
    length: Length,
    is_chunked: bool,
}

/// The value of `Content-Length`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Length {
    #[default]
    None,
    Known(u64),
    Invalid,
}

/// A body in chunks.
#[derive(Debug, Default)]
struct Chunks {
    at: At,
    last: u8,
}

#[derive(Debug)]
enum At {
    /// In the digits of a chunk's size.
    Size(u64),
    /// After the digits, in the same line.
    Extension(u64),
    /// In a chunk. So many bytes are left of it and of its line end.
    Data(u64),
    /// In the trailer, so many bytes into a line.
    Trailers(u64),
}

impl Default for At {
    fn default() -> Self {
        Self::Size(0)
    }
}

impl Scanner {
    /// Whether a head has begun and not ended.
    pub(crate) fn is_in_head(&self) -> bool {
        matches!(self.part, Part::Head) && (self.head.is_begun || !self.head.line.is_empty())
    }

    /// Scans the next bytes of the connection.
    ///
    /// # Errors
    /// The index of the first wrong byte, and what is wrong.
    pub(crate) fn scan(&mut self, bytes: &[u8]) -> Result<(), (usize, Fault)> {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            let (used, next) = match &mut self.part {
                Part::Head => self.head.scan(rest).map_err(|(index, fault)| (at + index, fault))?,
                Part::Body(left) => skip(left, rest),
                Part::Chunks(chunks) => chunks.scan(rest),
                Part::Unknown => return Ok(()),
            };
            at += used;
            if let Some(next) = next {
                self.part = next;
            }
        }
        Ok(())
    }
}

fn skip(left: &mut u64, bytes: &[u8]) -> (usize, Option<Part>) {
    let used = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
    *left -= used as u64;
    (used, (*left == 0).then_some(Part::Head))
}

impl Head {
    /// Scans lines up to the end of the head. Returns the number of bytes, and what follows.
    fn scan(&mut self, bytes: &[u8]) -> Result<(usize, Option<Part>), (usize, Fault)> {
        let mut start = 0;
        while let Some(length) = line_feed(&bytes[start..]) {
            let (line, end) = (&bytes[start..start + length], start + length);
            let is_empty = match line {
                _ if !self.line.is_empty() => self.join(line),
                [b'\r'] => Ok(true),
                [b'c' | b'C' | b't' | b'T', .., b'\r'] => self.field(&line[..length - 1]),
                [.., b'\r'] => Ok(false),
                _ => Err(Fault::BareLineFeed),
            };
            let is_empty = is_empty.map_err(|fault| (end, fault))?;
            start = end + 1;
            if is_empty && self.is_begun {
                return Ok((start, Some(self.end())));
            }
            self.is_begun |= !is_empty;
        }
        self.keep(&bytes[start..]);
        Ok((bytes.len(), None))
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = LONGEST_FRAMING.saturating_sub(self.line.len());
        self.line.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.last = bytes.last().copied().unwrap_or(self.last);
    }

    /// Ends a line, whose beginning may have arrived before. Returns whether the line is empty.
    fn join(&mut self, end: &[u8]) -> Result<bool, Fault> {
        self.keep(end);
        if std::mem::take(&mut self.last) != b'\r' {
            return Err(Fault::BareLineFeed);
        }
        let mut line = std::mem::take(&mut self.line);
        if line.len() < LONGEST_FRAMING {
            line.pop();
        }
        let is_empty = line.is_empty();
        self.field(&line)?;
        line.clear();
        self.line = line;
        Ok(is_empty)
    }

    /// Checks a line without its end; of a long line that arrived in pieces, its beginning. Returns `false`, because a line that
    /// could be one of these headers is not empty.
    fn field(&mut self, line: &[u8]) -> Result<bool, Fault> {
        let (coding, length) = match line.first() {
            Some(b't' | b'T') => (value_of(line, b"transfer-encoding:"), None),
            Some(b'c' | b'C') => (None, value_of(line, b"content-length:")),
            _ => return Ok(false),
        };
        if coding.or(length).is_some() && line.len() >= LONGEST_FRAMING - 1 {
            return Err(Fault::Framing);
        }
        if let Some(coding) = coding {
            if self.is_chunked || !coding.eq_ignore_ascii_case(b"chunked") {
                return Err(Fault::TransferCoding);
            }
            self.is_chunked = true;
        }
        if let Some(length) = length {
            self.length = self.length.and(length);
        }
        Ok(false)
    }

    /// The part that follows this head. Resets the state for the next head.
    fn end(&mut self) -> Part {
        self.is_begun = false;
        let is_chunked = std::mem::take(&mut self.is_chunked);
        match std::mem::take(&mut self.length) {
            _ if is_chunked => Part::Chunks(Chunks::default()),
            Length::None | Length::Known(0) => Part::Head,
            Length::Known(length) => Part::Body(length),
            Length::Invalid => Part::Unknown,
        }
    }
}

/// The value of a header line, if it is the header of that name, in lower case with the colon. Eight bytes are compared at a
/// time, because this runs for several lines of each request. The library rejects all other bytes that compare equal.
fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (given, value) = line.split_at_checked(name.len())?;
    let word = |text: &[u8], at: usize| text.get(at..)?.first_chunk().map(|word| u64::from_ne_bytes(*word));
    let is_word = |at: usize| word(given, at).map(|word| word | SMALL) == word(name, at);
    let is_name = is_word(0) && is_word(name.len() - 8) && (name.len() <= 16 || is_word(8));
    is_name.then(|| value.trim_ascii())
}

/// The index of the first line feed. Eight bytes at a time (Anderson, Bit Twiddling Hacks, "Determine if a word has a zero
/// byte"): lines are so short that a search with wider registers takes longer to begin.
fn line_feed(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    const FEEDS: u64 = u64::from_ne_bytes([b'\n'; 8]);
    let (words, rest) = bytes.as_chunks();
    for (number, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word) ^ FEEDS;
        let found = word.wrapping_sub(ONES) & !word & HIGH;
        if found != 0 {
            return Some(8 * number + found.trailing_zeros() as usize / 8);
        }
    }
    let at = rest.iter().position(|byte| *byte == b'\n')?;
    Some(8 * words.len() + at)
}

/// Converts eight letters to lower case, and leaves digits, `-` and `:` unchanged.
const SMALL: u64 = u64::from_ne_bytes([0x20; 8]);

/// The number that these digits represent.
fn number(text: &[u8]) -> Option<u64> {
    let digit = |byte: &u8| byte.is_ascii_digit().then(|| u64::from(byte - b'0'));
    let more = |number: u64, byte: &u8| number.checked_mul(10)?.checked_add(digit(byte)?);
    text.first().and_then(|_| text.iter().try_fold(0, more))
}

impl Length {
    /// With another header line.
    fn and(self, text: &[u8]) -> Self {
        match (self, number(text)) {
            (Self::None, Some(number)) => Self::Known(number),
            (Self::Known(known), Some(number)) if known == number => self,
            _ => Self::Invalid,
        }
    }
}

impl Chunks {
    /// Scans chunks up to the end of the body.
    fn scan(&mut self, bytes: &[u8]) -> (usize, Option<Part>) {
        let mut at = 0;
        while let Some(byte) = bytes.get(at).copied() {
            if let At::Data(left) = &mut self.at {
                let (used, is_over) = skip(left, &bytes[at..]);
                at += used;
                if is_over.is_some() {
                    self.at = At::Size(0);
                }
                continue;
            }
            at += 1;
            if let Some(next) = self.step(byte) {
                return (at, Some(next));
            }
            self.last = byte;
        }
        (at, None)
    }

    /// Scans one byte outside the data.
    fn step(&mut self, byte: u8) -> Option<Part> {
        let ends_line = byte == b'\n' && self.last == b'\r';
        self.at = match self.at {
            At::Size(size) => match (char::from(byte).to_digit(16), size.checked_mul(16)) {
                (Some(digit), Some(size)) => At::Size(size + u64::from(digit)),
                (Some(_), None) => return Some(Part::Unknown),
                (None, _) => At::Extension(size),
            },
            At::Extension(0) if ends_line => At::Trailers(0),
            At::Extension(size) if ends_line => match size.checked_add(2) {
                Some(left) => At::Data(left),
                None => return Some(Part::Unknown),
            },
            At::Extension(_) if byte == b'\n' => return Some(Part::Unknown),
            At::Trailers(1) if ends_line => return Some(Part::Head),
            At::Trailers(_) if ends_line => At::Trailers(0),
            At::Trailers(length) => At::Trailers(length + 1),
            At::Extension(size) => At::Extension(size),
            At::Data(left) => At::Data(left),
        };
        None
    }
}

#[cfg(test)]
mod tests;
