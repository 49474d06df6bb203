//! Tables and JSON lines as text: a file of many small documents, each a [`Row`].
//!
//! Invariants:
//! 1. Every field of a table that is not blank is in the text, also of rows longer or shorter than the header.
//! 2. A row knows its lines in the file, and all of the text but blank lines between rows belongs to a row.
//!
//! Knows nothing of files.

use std::fmt::Write;
use std::sync::Arc;

use csv::{ByteRecord, ReaderBuilder};
use sage::BoxError;
use serde_json::{Map, Value};

use super::load::{DocumentError, Reading, Row};

/// Reads a table whose first row names its columns. Returns the text and the rows.
pub(super) fn table(text: &str, delimiter: u8, reading: Reading<'_>) -> Result<(String, Vec<Row>), DocumentError> {
    let text = text.trim_start_matches('\u{feff}');
    let mut reader = ReaderBuilder::new().delimiter(delimiter).flexible(true).from_reader(text.as_bytes());
    let failed = |error: csv::Error| reading.line(error.position().map_or(0, csv::Position::line), error);
    let names: Vec<String> = reader.headers().map_err(failed)?.iter().map(|name| name.trim().to_owned()).collect();
    let mut rows = Rows::default();
    let mut record = ByteRecord::new();
    let mut number: u64 = 0;
    while reader.read_byte_record(&mut record).map_err(failed)? {
        number += 1;
        let mut metadata = Map::new();
        metadata.insert("row".to_owned(), number.into());
        let start = rows.text.len();
        for (column, field) in record.iter().enumerate() {
            // A field is cut from text at delimiters, which are ASCII.
            let field = str::from_utf8(field).expect("a field of UTF-8 text is UTF-8").trim();
            if field.is_empty() {
                continue;
            }
            match names.get(column).filter(|name| !name.is_empty()) {
                Some(name) => writeln!(rows.text, "{name}: {field}"),
                None => writeln!(rows.text, "column {}: {field}", column + 1),
            }
            .expect("a string takes all that is written");
            if rows.text.len() as u64 > reading.loader.max_text_bytes {
                return Err(reading.too_much_text());
            }
        }
        // The reader skips blank lines before a row, so its own lines are counted from its end.
        let after = reader.position().line();
        let lines = 1 + record.iter().map(|field| field.iter().filter(|&&byte| byte == b'\n').count()).sum::<usize>();
        let last_line = last_line(text, after, reader.position().byte());
        rows.end(start, last_line + 1 - lines.min(last_line), last_line, metadata);
    }
    Ok((rows.text, rows.rows))
}

/// The line that ends before `byte`, where the reader is on line `after`.
fn last_line(text: &str, after: u64, byte: u64) -> usize {
    let ended = text.as_bytes()[..usize::try_from(byte).unwrap_or(text.len())].ends_with(b"\n");
    usize::try_from(after).unwrap_or(usize::MAX) - usize::from(ended)
}

/// Reads a line of JSON after the other; blank lines are left out. Returns the text and the rows.
pub(super) fn json_lines(text: &str, reading: Reading<'_>) -> Result<(String, Vec<Row>), DocumentError> {
    let mut rows = Rows::default();
    for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let bad = |source: BoxError| reading.line(index as u64 + 1, source);
        let text_field = &*reading.loader.text_field;
        let (text, metadata) = match serde_json::from_str(line).map_err(|error| bad(error.into()))? {
            Value::String(text) => (text, Map::new()),
            Value::Object(mut fields) => match fields.remove(text_field) {
                Some(Value::String(text)) => (text, fields),
                Some(_) => return Err(bad(format!("its field `{text_field}` is not a string").into())),
                None => return Err(bad(format!("it has no field `{text_field}`, which is to be its text").into())),
            },
            _ => return Err(bad("it is neither an object nor a string".into())),
        };
        if text.contains('\0') {
            return Err(bad("its text holds a zero character".into()));
        }
        let start = rows.text.len();
        rows.text.push_str(text.trim_end());
        rows.text.push('\n');
        rows.end(start, index + 1, index + 1, metadata);
    }
    Ok((rows.text, rows.rows))
}

/// The rows read so far, and their text.
#[derive(Default)]
struct Rows {
    text: String,
    rows: Vec<Row>,
}

impl Rows {
    /// Makes a row of the text from `start`, if it is not blank.
    fn end(&mut self, start: usize, first_line: usize, last_line: usize, metadata: Map<String, Value>) {
        if self.text[start..].trim().is_empty() {
            self.text.truncate(start);
            return;
        }
        // Between two rows stands a blank line. It belongs to neither.
        let start = if start == 0 {
            0
        } else {
            self.text.insert(start, '\n');
            start + 1
        };
        let bytes = start..self.text.len();
        self.rows.push(Row { bytes, first_line, last_line, metadata: Arc::new(metadata) });
    }
}
