//! Reads files as text, and notes what else their formats tell: title, pages, rows.
//!
//! Invariants:
//! 1. No more than `max_bytes` of a file is read, and no more than `max_text_bytes` is made of it, whatever the file
//!    says of itself. A file that is too long is refused before it is read.
//! 2. Any file gives a document or an error that names the file. Nothing is skipped in silence.
//!
//! Knows nothing of folders and passages.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sage::BoxError;
use serde_json::{Map, Value};
use thiserror::Error;

#[cfg(feature = "docx")]
use super::docx;
use super::html::html_title;
use super::layout::{FileType, Format};
#[cfg(feature = "pdf")]
use super::pdf;
use super::rows;

/// Longest file that is read unless a [`Loader`] says otherwise, 16 MiB: a document is held in memory while it is cut.
pub const MAX_DOCUMENT_BYTES: u64 = 16 << 20;

/// Why a document was passed over.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// The file, or a folder on the way to it, cannot be read.
    #[error("`{}` cannot be read", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file holds a zero byte, so it is not text.
    #[error("`{}` is not text: it holds a zero byte", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// The file is longer than the loader reads.
    #[error("`{}` has {size_bytes} bytes; documents may have {max_bytes}", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Its size.
        size_bytes: u64,
        /// The longest file that the loader reads.
        max_bytes: u64,
    },
    /// What is packed in the file, or its text, is longer than the loader allows.
    #[error("`{}` unpacks to more than {max_text_bytes} bytes", path.display())]
    TooMuchText {
        /// The file.
        path: PathBuf,
        /// How much the loader allows.
        max_text_bytes: u64,
    },
    /// The file is not of the format that its extension promises, or damaged.
    #[error("`{}` is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: BoxError,
    },
    /// The file is encrypted, and no password is known.
    #[error("`{}` is encrypted", path.display())]
    Encrypted {
        /// The file.
        path: PathBuf,
    },
    /// The pages of the file hold no text.
    #[error("`{}` has no text: its pages may be pictures", path.display())]
    NoText {
        /// The file.
        path: PathBuf,
    },
    /// Drawing the pages of the file took too long.
    #[error("`{}` was not read within {max_time:?}", path.display())]
    TooSlow {
        /// The file.
        path: PathBuf,
        /// How long the loader waits.
        max_time: Duration,
    },
    /// The library was built without what reads such a file.
    #[error("`{}` needs the feature `{feature}` of sage-services, which was built without", path.display())]
    NotBuilt {
        /// The file.
        path: PathBuf,
        /// The feature to build with.
        feature: &'static str,
    },
    /// A line of the file is not what its extension promises.
    #[error("line {line} of `{}` cannot be read", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: u64,
        /// What is wrong with it.
        source: BoxError,
    },
}

/// The text of a file, and what else is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct DocumentText {
    /// The text, with U+FFFD for bytes that are not UTF-8.
    pub text: String,
    /// Whether all of the file was UTF-8.
    pub is_utf8: bool,
    /// How to read the lines of the text.
    pub format: Format,
    /// The title, where the file states one.
    pub title: Option<String>,
    /// By page: the byte of the text where it begins. Empty unless the file has pages.
    pub pages: Vec<usize>,
    /// The rows in order. Empty unless the file is a table or JSON lines; else all of the text is in them.
    pub rows: Vec<Row>,
}

/// A row of a CSV file or a line of JSON: a document of its own within its file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Row {
    /// Where its text lies in the text of the file.
    pub bytes: Range<usize>,
    /// First line in the file, counted from 1.
    pub first_line: usize,
    /// Last line in the file, inclusive.
    pub last_line: usize,
    /// Of a CSV file: `row`, its number, counted from 1 below the header. Of JSON: the fields that are not its text.
    pub metadata: Arc<Map<String, Value>>,
}

impl Row {
    /// Makes a row, for a text that was read by something else than a [`Loader`].
    pub fn new(bytes: Range<usize>, first_line: usize, last_line: usize, metadata: Map<String, Value>) -> Self {
        Self { bytes, first_line, last_line, metadata: Arc::new(metadata) }
    }
}

/// Reads a file as text, as [`Loader::default`] does.
///
/// # Errors
/// [`DocumentError`], one variant for each reason.
pub fn read_document(path: &Path) -> Result<DocumentText, DocumentError> {
    Loader::default().read(path)
}

/// Reads files as text, each by the extension of its name.
///
/// | extension | text |
/// |---|---|
/// | `csv`, `tsv` | the rows, each as lines `column: value`, a blank line between two; rows may be uneven |
/// | `jsonl`, `ndjson` | the [text field](Self::text_field) of each line, a blank line between two |
/// | `pdf` | the lines of its pages, in the order in which they are drawn; needs the feature `pdf` |
/// | `docx` | paragraphs as Markdown, tables a row a line, notes at the end; needs the feature `docx` |
/// | any other | the file as it is; that of an HTML page is told from its tags by [`Chunker`](crate::Chunker) |
///
/// ```
/// use sage_services::Loader;
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("stops.csv");
/// std::fs::write(&path, "name,order\nsink,first\nservice,last\n")?;
/// let document = Loader::default().read(&path)?;
/// assert_eq!(document.text, "name: sink\norder: first\n\nname: service\norder: last\n");
/// assert_eq!(document.rows[1].first_line, 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loader {
    max_bytes: u64,
    pub(super) max_text_bytes: u64,
    pub(super) max_time: Duration,
    pub(super) text_field: String,
}

impl Default for Loader {
    /// Files of up to 16 MiB, unpacked of up to 64 MiB, read within 60 seconds; the text field is `text`.
    fn default() -> Self {
        Self {
            max_bytes: MAX_DOCUMENT_BYTES,
            max_text_bytes: 4 * MAX_DOCUMENT_BYTES,
            max_time: Duration::from_secs(60),
            text_field: "text".to_owned(),
        }
    }
}

impl Loader {
    /// Sets the longest file that is read, in bytes; 16 MiB by default. A document is held in memory as a whole.
    #[must_use]
    pub fn max_bytes(mut self, max_bytes: u64) -> Self {
        self.max_bytes = max_bytes;
        self
    }

    /// Sets how much a file may unpack to, in bytes; 64 MiB by default. Also limits the text made of a CSV file, which
    /// repeats the names of columns.
    #[must_use]
    pub fn max_text_bytes(mut self, max_text_bytes: u64) -> Self {
        self.max_text_bytes = max_text_bytes;
        self
    }

    /// Sets how long reading the pages of a PDF file may take; 60 seconds by default. A file can have them drawn for
    /// ever.
    #[must_use]
    pub fn max_time(mut self, max_time: Duration) -> Self {
        self.max_time = max_time;
        self
    }

    /// Sets which field of a line of JSON is its text; `text` by default. The other fields become the row's metadata.
    /// A line that is a string has no fields: it is text as a whole.
    #[must_use]
    pub fn text_field(mut self, name: impl Into<String>) -> Self {
        self.text_field = name.into();
        self
    }

    /// Reads a file as text. Blocks while it does.
    ///
    /// # Errors
    /// [`DocumentError`], one variant for each reason.
    pub fn read(&self, path: &Path) -> Result<DocumentText, DocumentError> {
        let bytes = self.bytes(path)?;
        let reading = Reading { path, loader: self };
        let file_type = FileType::of(&path.to_string_lossy());
        match file_type {
            FileType::Pdf => return pdf::read(bytes, reading),
            FileType::Docx => return docx::read(bytes, reading),
            _ => {}
        }
        if bytes.contains(&0) {
            return Err(DocumentError::NotText { path: path.to_owned() });
        }
        let (text, is_utf8) = match String::from_utf8(bytes) {
            Ok(text) => (text, true),
            Err(error) => (String::from_utf8_lossy(error.as_bytes()).into_owned(), false),
        };
        let (text, rows) = match file_type {
            FileType::Table { delimiter } => rows::table(&text, delimiter, reading)?,
            FileType::JsonLines => rows::json_lines(&text, reading)?,
            _ => (text, Vec::new()),
        };
        let format = file_type.format();
        let title = if format == Format::Html { html_title(&text) } else { None };
        Ok(DocumentText { text, is_utf8, format, title, rows, pages: Vec::new() })
    }

    /// The bytes of a file that is not too long, even if it grows meanwhile.
    fn bytes(&self, path: &Path) -> Result<Vec<u8>, DocumentError> {
        let failed = |source| DocumentError::Read { path: path.to_owned(), source };
        let too_long =
            |size_bytes| DocumentError::TooLong { path: path.to_owned(), size_bytes, max_bytes: self.max_bytes };
        let file = File::open(path).map_err(failed)?;
        let size_bytes = file.metadata().map_err(failed)?.len();
        if size_bytes > self.max_bytes {
            return Err(too_long(size_bytes));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size_bytes).unwrap_or(0));
        file.take(self.max_bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
        let read_bytes = bytes.len() as u64;
        if read_bytes > self.max_bytes { Err(too_long(read_bytes)) } else { Ok(bytes) }
    }
}

/// A file that is being read, and the errors it may come to.
#[derive(Clone, Copy)]
pub(super) struct Reading<'a> {
    pub(super) path: &'a Path,
    pub(super) loader: &'a Loader,
}

impl Reading<'_> {
    pub(super) fn too_much_text(self) -> DocumentError {
        DocumentError::TooMuchText { path: self.path.to_owned(), max_text_bytes: self.loader.max_text_bytes }
    }

    pub(super) fn line(self, line: u64, source: impl Into<BoxError>) -> DocumentError {
        DocumentError::Line { path: self.path.to_owned(), line, source: source.into() }
    }
}

#[cfg(not(feature = "pdf"))]
mod pdf {
    use super::{DocumentError, DocumentText, Reading};

    pub(super) fn read(_bytes: Vec<u8>, reading: Reading<'_>) -> Result<DocumentText, DocumentError> {
        Err(DocumentError::NotBuilt { path: reading.path.to_owned(), feature: "pdf" })
    }
}

#[cfg(not(feature = "docx"))]
mod docx {
    use super::{DocumentError, DocumentText, Reading};

    pub(super) fn read(_bytes: Vec<u8>, reading: Reading<'_>) -> Result<DocumentText, DocumentError> {
        Err(DocumentError::NotBuilt { path: reading.path.to_owned(), feature: "docx" })
    }
}

#[cfg(any(feature = "docx", feature = "pdf"))]
impl Reading<'_> {
    pub(super) fn damaged(self, source: impl Into<BoxError>) -> DocumentError {
        DocumentError::Damaged { path: self.path.to_owned(), source: source.into() }
    }
}
