//! Keeps the text of the CSV record that is being read, to limit its length and to show it when it is bad.

use std::io::{self, Read};

use crate::open::Input;

/// Memory of text that was read is freed in pieces at least this large.
const FORGET_BYTES: usize = 64 << 10;

/// A reader that keeps the text of the current record, and stops when one record is too long.
pub(crate) struct Kept {
    input: Input,
    text: Vec<u8>,
    /// Where in the file `text` begins.
    begins: u64,
    /// How many bytes may still be read for this record.
    left: u64,
    ended: bool,
}

impl Kept {
    pub(crate) fn new(input: Input) -> Self {
        Self { input, text: Vec::new(), begins: 0, left: 0, ended: false }
    }

    /// Begins with a record at `from` that may have `bytes` bytes. What is before it is not asked for any more.
    #[inline]
    pub(crate) fn begin(&mut self, from: u64, bytes: u64) {
        self.left = bytes;
        let over = (from - self.begins) as usize;
        if over >= FORGET_BYTES || over == self.text.len() {
            self.text.drain(..over);
            self.text.shrink_to(FORGET_BYTES * 16);
            self.begins = from;
        }
    }

    /// The text between two places of the record that was begun last.
    pub(crate) fn text(&self, from: u64, to: u64) -> &[u8] {
        &self.text[(from - self.begins) as usize..(to - self.begins) as usize]
    }

    /// Whether the file ends at `place`, as far as has been looked.
    pub(crate) fn ends_at(&self, place: u64) -> bool {
        self.ended && place == self.begins + self.text.len() as u64
    }
}

impl Read for Kept {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::Error::other(TooMuch));
        }
        let read = self.input.read(buffer)?;
        self.text.extend_from_slice(&buffer[..read]);
        self.left = self.left.saturating_sub(read as u64);
        self.ended |= read == 0 && !buffer.is_empty();
        Ok(read)
    }
}

/// The record is longer than it may be.
#[derive(Debug, thiserror::Error)]
#[error("the record is too long")]
pub(crate) struct TooMuch;

impl TooMuch {
    pub(crate) fn is(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<Self>())
    }
}

/// Whether a quoted field of this record is still open where the text ends. A quote opens a field only at its
/// beginning; two within it stand for one.
pub(crate) fn quote_is_open(text: &[u8], delimiter: u8) -> bool {
    enum At {
        FieldStart,
        Plain,
        Quoted,
        Quote,
    }
    let mut at = At::FieldStart;
    for &byte in text {
        at = match (at, byte) {
            (At::FieldStart, b'"') | (At::Quote, b'"') => At::Quoted,
            (At::Quoted, b'"') => At::Quote,
            (At::Quoted, _) => At::Quoted,
            (_, byte) if byte == delimiter || byte == b'\n' || byte == b'\r' => At::FieldStart,
            _ => At::Plain,
        };
    }
    matches!(at, At::Quoted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_quote_is_told_from_one_within_a_field() {
        let open = |text: &str| quote_is_open(text.as_bytes(), b',');
        assert!(open("1,\"two"));
        assert!(open("\"a\"\"b"));
        assert!(open("\n\"a\n,b,c\n"));
        assert!(!open("1,\"two\""));
        assert!(!open("1,5\" pipe,x"));
        assert!(!open("\"a\"\"\",\"\"\n"));
        assert!(!open(""));
    }
}
