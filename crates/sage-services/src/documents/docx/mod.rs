//! The text of Word files: XML, packed by zip.
//!
//! Invariants:
//! 1. No more is unpacked than the loader allows, whatever the archive says of its sizes. Archives and pictures in the
//!    file are not unpacked.
//! 2. Whatever the file holds, reading it ends: with its text, or with what is wrong.
//!
//! Knows nothing of files and passages.

mod markdown;
mod styles;

use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::panic::catch_unwind;

use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, XmlVersion};
use sage::BoxError;
use zip::ZipArchive;

use self::markdown::Markdown;
use self::styles::Styles;
use super::layout::Format;
use super::load::{DocumentError, DocumentText, Reading};

/// What a file of the old format begins with, or one with a password.
const OLE: &[u8] = &[0xd0, 0xcf, 0x11, 0xe0];

/// Reads the text of a Word file.
pub(super) fn read(bytes: Vec<u8>, reading: Reading<'_>) -> Result<DocumentText, DocumentError> {
    if bytes.starts_with(OLE) {
        return Err(DocumentError::Encrypted { path: reading.path.to_owned() });
    }
    let max_text_bytes = reading.loader.max_text_bytes;
    let read = catch_unwind(|| text(bytes, max_text_bytes));
    read.unwrap_or_else(|_| Err(Unread::Damaged("it broke the reader".into()))).map_err(|unread| match unread {
        Unread::TooMuch => reading.too_much_text(),
        Unread::Damaged(source) => reading.damaged(source),
    })
}

/// Why there is no text.
enum Unread {
    TooMuch,
    Damaged(BoxError),
}

impl<E: Into<BoxError>> From<E> for Unread {
    fn from(error: E) -> Self {
        Self::Damaged(error.into())
    }
}

fn text(bytes: Vec<u8>, max_text_bytes: u64) -> Result<DocumentText, Unread> {
    let mut parts = Parts { archive: ZipArchive::new(Cursor::new(bytes))?, left: max_text_bytes };
    let is_main = |name: &str| name.starts_with("word/document") && name.ends_with(".xml");
    let main =
        parts.archive.file_names().filter_map(Result::ok).find(|name| is_main(name)).map(|name| name.into_owned());
    let main = main.ok_or("it has no `word/document.xml`")?;
    let mut styles = Styles::default();
    parts.read("word/styles.xml", |event| styles.take(event))?;
    let mut markdown = Markdown::new(styles);
    parts.read(&main, |event| markdown.take(event))?;
    for notes in ["word/footnotes.xml", "word/endnotes.xml"] {
        parts.read(notes, |event| markdown.take(event))?;
    }
    let mut title = Title::default();
    parts.read("docProps/core.xml", |event| title.take(event))?;
    let title = Some(title.text.trim().to_owned()).filter(|title| !title.is_empty());
    let text = markdown.end();
    Ok(DocumentText { text, is_utf8: true, format: Format::Markdown, title, ..DocumentText::default() })
}

/// The files in the archive, and how many bytes of them may still be unpacked.
struct Parts {
    archive: ZipArchive<Cursor<Vec<u8>>>,
    left: u64,
}

impl Parts {
    /// Calls `take` for all that a part says; a part that is not there says nothing.
    fn read(&mut self, name: &str, mut take: impl FnMut(&Event<'_>)) -> Result<(), Unread> {
        let part = match self.archive.by_name(name) {
            Err(zip::result::ZipError::FileNotFound) => return Ok(()),
            part => part?,
        };
        let mut unpacked = Counted { inner: BufReader::new(part), left: self.left };
        let read = events(&mut unpacked, &mut take);
        self.left = unpacked.left;
        if self.left == 0 { Err(Unread::TooMuch) } else { Ok(read?) }
    }
}

fn events(unpacked: &mut impl BufRead, take: &mut impl FnMut(&Event<'_>)) -> Result<(), quick_xml::Error> {
    let mut reader = Reader::from_reader(unpacked);
    let mut buffer = Vec::new();
    loop {
        match reader.read_event_into(&mut buffer)? {
            Event::Eof => return Ok(()),
            event => take(&event),
        }
        buffer.clear();
    }
}

/// Ends when nothing is left to be unpacked.
struct Counted<R> {
    inner: R,
    left: u64,
}

impl<R: BufRead> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let filled = self.inner.fill_buf()?;
        Ok(&filled[..filled.len().min(usize::try_from(self.left).unwrap_or(usize::MAX))])
    }

    fn consume(&mut self, amount: usize) {
        self.inner.consume(amount);
        self.left -= amount as u64;
    }
}

/// The title among the properties of a file.
#[derive(Default)]
struct Title {
    text: String,
    is_open: bool,
}

impl Title {
    fn take(&mut self, event: &Event<'_>) {
        match event {
            Event::Start(tag) => self.is_open = tag.local_name().as_ref() == "title",
            Event::End(_) => self.is_open = false,
            _ if self.is_open => push_text(event, &mut self.text),
            _ => {}
        }
    }
}

/// Adds the text of an event to `text`, if it is one.
fn push_text(event: &Event<'_>, text: &mut String) {
    match event {
        Event::Text(some) => text.push_str(&some.xml10_content()),
        Event::CData(some) => text.push_str(&some.xml10_content()),
        Event::GeneralRef(reference) => match &**reference {
            "amp" => text.push('&'),
            "lt" => text.push('<'),
            "gt" => text.push('>'),
            "quot" => text.push('"'),
            "apos" => text.push('\''),
            _ => text.extend(reference.resolve_char_ref().ok().flatten()),
        },
        _ => {}
    }
}

/// The value of an attribute, whatever its namespace.
fn value(tag: &BytesStart<'_>, name: &str) -> Option<String> {
    let attribute = tag.attributes().filter_map(Result::ok).find(|one| one.key.local_name().as_ref() == name)?;
    attribute.normalized_value(XmlVersion::Implicit1_0).ok().map(|value| value.into_owned())
}
