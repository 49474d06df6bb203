//! Reads lines of a file: bounded, counted, in one buffer that is used again.
//!
//! A line ends with `\n` or `\r\n`; the last may end with the file.

use std::io::{BufRead, Read};
use std::path::Path;
use std::str::Utf8Error;
use std::sync::Arc;

use crate::bad_line::BadLine;
use crate::encoding::Encoding;
use crate::error::InputError;
use crate::open::Input;
use crate::walk::OpenFile;

/// A buffer that one long line made larger than this is freed.
const KEPT_BUFFER_BYTES: usize = 1 << 20;

pub(crate) struct Lines {
    input: Input,
    pub(crate) path: Arc<Path>,
    encoding: Encoding,
    /// The number of the line that was read last, from 1.
    pub(crate) number: u64,
    max_bytes: usize,
    buffer: Vec<u8>,
}

impl Lines {
    pub(crate) fn new(file: OpenFile) -> Self {
        let OpenFile { path, input, encoding, max_record_bytes } = file;
        Self { input, path, encoding, number: 0, max_bytes: max_record_bytes, buffer: Vec::new() }
    }

    /// Reads the next line, without its end.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<&[u8]>, InputError> {
        if self.buffer.capacity() > KEPT_BUFFER_BYTES {
            self.buffer = Vec::new();
        }
        self.buffer.clear();
        self.number += 1;
        // Room for the longest line, its end, and no more.
        let room = (self.max_bytes as u64).saturating_add(2);
        let read = self.input.by_ref().take(room).read_until(b'\n', &mut self.buffer);
        if let Err(source) = read {
            return Err(InputError::reading(&self.path, self.number, source));
        }
        if self.buffer.is_empty() {
            return Ok(None);
        }
        let line = without_end(&self.buffer);
        if line.len() > self.max_bytes {
            let (path, limit_bytes) = (self.path.to_path_buf(), self.max_bytes);
            return Err(InputError::TooLong { path, line: self.number, limit_bytes });
        }
        Ok(Some(line))
    }

    /// The line that was read last, as malformed: it is not in the file's encoding.
    #[cold]
    pub(crate) fn not_text(&self, error: Utf8Error) -> Box<BadLine> {
        let mut message = format!("not valid {}", self.encoding.name());
        if self.encoding == Encoding::Utf8 {
            message.push_str(&format!(" after byte {}", error.valid_up_to()));
        }
        if self.number == 1 && matches!(self.buffer.as_slice(), [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..]) {
            message.push_str("; the file begins as one of UTF-16 does, see `Files::encoding`");
        }
        self.bad(message)
    }

    /// The line that was read last, as malformed: it is not a record.
    #[cold]
    pub(crate) fn bad(&self, message: String) -> Box<BadLine> {
        BadLine::new(&self.path, self.number, message, without_end(&self.buffer))
    }
}

fn without_end(line: &[u8]) -> &[u8] {
    match line {
        [line @ .., b'\r', b'\n'] | [line @ .., b'\n'] => line,
        line => line,
    }
}
