//! Turns text in other encodings into UTF-8, so that formats need only know UTF-8.
//!
//! Invariant: nothing is dropped in silence. Bytes that are no character of the encoding become U+FFFD if that was
//! asked for. Otherwise they become bytes that are not UTF-8, so that their line is malformed, and no other.

use std::io::{self, BufRead, Read};

use crate::open::Input;

/// How the text of a file is encoded; see [`Files::encoding`](crate::Files::encoding).
///
/// A byte order mark at the beginning of a file is not part of its text, except in Latin-1, which has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Encoding {
    /// UTF-8, the default. A line with anything else in it is malformed.
    #[default]
    Utf8,
    /// UTF-8, with U+FFFD in place of anything else.
    Utf8Lossy,
    /// ISO-8859-1: a character per byte. Nothing is malformed.
    Latin1,
    /// UTF-16 in the byte order of its mark; without a mark, the lower byte comes first. A line with half a character
    /// in it is malformed.
    Utf16,
    /// UTF-16 with the lower byte first.
    Utf16Le,
    /// UTF-16 with the higher byte first.
    Utf16Be,
}

impl Encoding {
    /// Its name, for messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Utf8 | Self::Utf8Lossy => "UTF-8",
            Self::Latin1 => "ISO-8859-1",
            Self::Utf16 | Self::Utf16Le | Self::Utf16Be => "UTF-16",
        }
    }

    fn byte_order_mark(self) -> &'static [u8] {
        match self {
            Self::Utf8 | Self::Utf8Lossy => b"\xEF\xBB\xBF",
            Self::Latin1 => b"",
            // What is left of the mark of the other order tells the order.
            Self::Utf16 | Self::Utf16Le => b"\xFF\xFE",
            Self::Utf16Be => b"\xFE\xFF",
        }
    }
}

/// The text of an input.
pub(crate) fn decoded(input: Input, encoding: Encoding) -> Input {
    let text: Input = Box::new(Marked { input, encoding, head: Vec::new(), at: 0, begun: false });
    match encoding {
        Encoding::Utf8 => text,
        _ => Box::new(Decoder { input: text, encoding, rest: Vec::new(), text: Vec::new(), at: 0, ended: false }),
    }
}

/// Skips a byte order mark.
struct Marked {
    input: Input,
    encoding: Encoding,
    /// The first bytes, if they are not a mark.
    head: Vec<u8>,
    at: usize,
    begun: bool,
}

impl Marked {
    /// Reads as many bytes as a mark has, which may come in pieces.
    #[cold]
    fn begin(&mut self) -> io::Result<()> {
        let mark = self.encoding.byte_order_mark();
        while self.head.len() < mark.len() {
            let read = self.input.fill_buf()?;
            if read.is_empty() {
                break;
            }
            let taken = read.len().min(mark.len() - self.head.len());
            self.head.extend_from_slice(&read[..taken]);
            self.input.consume(taken);
        }
        if self.head == mark {
            self.head.clear();
        }
        self.begun = true;
        Ok(())
    }
}

impl Read for Marked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

impl BufRead for Marked {
    #[inline]
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if !self.begun {
            self.begin()?;
        }
        if self.at == self.head.len() { self.input.fill_buf() } else { Ok(&self.head[self.at..]) }
    }

    #[inline]
    fn consume(&mut self, amount: usize) {
        if self.at == self.head.len() { self.input.consume(amount) } else { self.at += amount }
    }
}

/// Makes UTF-8 of another encoding, piece by piece.
struct Decoder {
    input: Input,
    encoding: Encoding,
    /// The first part of a character whose other parts are still to come.
    rest: Vec<u8>,
    text: Vec<u8>,
    at: usize,
    ended: bool,
}

impl Decoder {
    /// Decodes the next piece of the input.
    fn refill(&mut self) -> io::Result<()> {
        let read = self.input.fill_buf()?;
        self.ended = read.is_empty();
        self.text.clear();
        self.at = 0;
        let taken = read.len();
        let joined;
        let bytes = if self.rest.is_empty() {
            read
        } else {
            joined = [&self.rest, read].concat();
            &joined
        };
        if self.encoding == Encoding::Utf16 && bytes.len() >= 2 {
            self.encoding = Encoding::Utf16Le;
            if bytes.starts_with(b"\xFE\xFF") {
                self.encoding = Encoding::Utf16Be;
                self.rest = bytes[2..].to_vec();
                self.input.consume(taken);
                return Ok(());
            }
        }
        let used = match self.encoding {
            Encoding::Latin1 => latin1(bytes, &mut self.text),
            Encoding::Utf16Be => utf16(bytes, u16::from_be_bytes, self.ended, &mut self.text),
            Encoding::Utf16 | Encoding::Utf16Le => utf16(bytes, u16::from_le_bytes, self.ended, &mut self.text),
            Encoding::Utf8 | Encoding::Utf8Lossy => lossy(bytes, self.ended, &mut self.text),
        };
        self.rest = bytes[used..].to_vec();
        self.input.consume(taken);
        Ok(())
    }
}

impl Read for Decoder {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

impl BufRead for Decoder {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.at == self.text.len() && !self.ended {
            self.refill()?;
        }
        Ok(&self.text[self.at..])
    }

    fn consume(&mut self, amount: usize) {
        self.at += amount;
    }
}

/// Each of these decodes what it can, and says how many bytes that was; at the end of input it is all of them.
fn latin1(bytes: &[u8], text: &mut Vec<u8>) -> usize {
    for &byte in bytes {
        push(char::from(byte), text);
    }
    bytes.len()
}

fn lossy(bytes: &[u8], ended: bool, text: &mut Vec<u8>) -> usize {
    let mut used = 0;
    loop {
        let error = match str::from_utf8(&bytes[used..]) {
            Ok(valid) => {
                text.extend_from_slice(valid.as_bytes());
                return bytes.len();
            }
            Err(error) => error,
        };
        text.extend_from_slice(&bytes[used..used + error.valid_up_to()]);
        used += error.valid_up_to();
        match error.error_len() {
            Some(length) => used += length,
            None if ended => used = bytes.len(),
            None => return used,
        }
        push(char::REPLACEMENT_CHARACTER, text);
    }
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16, ended: bool, text: &mut Vec<u8>) -> usize {
    let (pairs, odd) = bytes.as_chunks::<2>();
    let mut used = 0;
    while let Some(&pair) = pairs.get(used) {
        let first = unit(pair);
        let second = pairs.get(used + 1).map(|&pair| unit(pair));
        let is_first_half = (0xD800..0xDC00).contains(&first);
        if is_first_half && second.is_none() && !ended {
            return used * 2;
        }
        match char::decode_utf16([first].into_iter().chain(second.filter(|_| is_first_half))).next() {
            Some(Ok(whole)) => {
                push(whole, text);
                used += whole.len_utf16();
            }
            // Half a character: three bytes that UTF-8 has no use for.
            _ => {
                let [high, low] = first.to_be_bytes();
                text.extend([0xE0 | high >> 4, 0x80 | (high & 0xF) << 2 | low >> 6, 0x80 | low & 0x3F]);
                used += 1;
            }
        }
    }
    if !ended {
        return used * 2;
    }
    // Half a unit.
    text.extend(odd.iter().map(|_| 0xFF));
    bytes.len()
}

fn push(character: char, text: &mut Vec<u8>) {
    text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use proptest::prelude::*;

    use super::*;

    /// Reads so few bytes at a time.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let piece = self.0.len().min(self.1).min(buffer.len());
            self.0.read(&mut buffer[..piece])
        }
    }

    fn decode(bytes: &[u8], encoding: Encoding, piece: usize) -> Vec<u8> {
        let bytes: &'static [u8] = bytes.to_vec().leak();
        let mut text = Vec::new();
        decoded(Box::new(BufReader::new(Pieces(bytes, piece))), encoding).read_to_end(&mut text).unwrap();
        text
    }

    fn in_utf16(text: &str, unit: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(unit).collect()
    }

    proptest! {
        #[test]
        fn text_comes_back_whatever_the_encoding_and_the_pieces(
            text in "[^\u{FEFF}]{0,40}",
            mark in any::<bool>(),
            piece in 1..9_usize,
        ) {
            let marked = if mark { format!("\u{FEFF}{text}") } else { text.clone() };
            let (le, be) = (in_utf16(&marked, u16::to_le_bytes), in_utf16(&marked, u16::to_be_bytes));
            let utf16 = if mark { &be } else { &le };
            for (bytes, encoding) in [
                (marked.as_bytes(), Encoding::Utf8),
                (marked.as_bytes(), Encoding::Utf8Lossy),
                (utf16, Encoding::Utf16),
                (&le, Encoding::Utf16),
                (&le, Encoding::Utf16Le),
                (&be, Encoding::Utf16Be),
            ] {
                prop_assert_eq!(decode(bytes, encoding, piece), text.as_bytes(), "{:?}", encoding);
            }
        }

        #[test]
        fn what_is_no_text_is_replaced_or_malformed(
            bytes in proptest::collection::vec(any::<u8>(), 0..40),
            piece in 1..9_usize,
        ) {
            let lossy = decode(&bytes, Encoding::Utf8Lossy, piece);
            let bare = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&bytes);
            prop_assert_eq!(String::from_utf8(lossy).unwrap(), String::from_utf8_lossy(bare));
            let latin: String = bytes.iter().map(|&byte| char::from(byte)).collect();
            prop_assert_eq!(decode(&bytes, Encoding::Latin1, piece), latin.as_bytes());
            let bare = bytes.strip_prefix(b"\xFF\xFE").unwrap_or(&bytes);
            let units: Vec<u16> = bare.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
            let whole = String::from_utf16(&units).ok().filter(|_| bare.len() % 2 == 0);
            prop_assert_eq!(String::from_utf8(decode(&bytes, Encoding::Utf16Le, piece)).ok(), whole);
        }
    }
}
