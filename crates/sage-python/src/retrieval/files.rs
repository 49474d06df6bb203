//! Finding and reading documents.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use pyo3::exceptions::{PyOSError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyString;
use sage::chain_of;
use sage_services::{DocumentError, Format, Loader};

use super::arguments::{kind, whole};
use super::rows::{Row, rows};
use crate::spec::Seconds;
use crate::thread::lock;

type Walk = Box<dyn Iterator<Item = Result<PathBuf, DocumentError>> + Send>;

/// The paths of documents, found as they are asked for.
#[pyclass(frozen, module = "sage.services")]
pub(crate) struct Documents {
    walk: Mutex<Walk>,
    on_error: Option<Py<PyAny>>,
}

#[pymethods]
impl Documents {
    fn __iter__(this: Py<Self>) -> Py<Self> {
        this
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<OsString>> {
        loop {
            match py.detach(|| lock(&self.walk).next()) {
                Some(Ok(path)) => return Ok(Some(path.into_os_string())),
                Some(Err(error)) => match &self.on_error {
                    Some(on_error) => drop(on_error.call1(py, (raised(error).into_value(py),))?),
                    None => return Err(raised(error)),
                },
                None => return Ok(None),
            }
        }
    }
}

/// The paths of the files below ``folder`` that end in one of ``extensions``, in the order of their names; read as they
/// are asked for.
///
/// Extensions are in any case and with or without a dot. Hidden files and folders, ``target`` and ``node_modules`` are
/// left out; links are not followed, except for ``folder`` itself. A folder that cannot be read raises ``OSError``, or
/// is given to ``on_error`` as that exception, and the walk goes on behind it.
///
/// >>> import os, tempfile
/// >>> folder = tempfile.mkdtemp()
/// >>> for name in ("b.md", "a.MD", "c.txt"):
/// ...     open(os.path.join(folder, name), "w").close()
/// >>> [os.path.basename(path) for path in documents(folder, ["md"])]
/// ['a.MD', 'b.md']
#[pyfunction]
#[pyo3(signature = (folder, extensions, on_error=None))]
pub(crate) fn documents(
    folder: PathBuf,
    extensions: &Bound<'_, PyAny>,
    on_error: Option<Bound<'_, PyAny>>,
) -> PyResult<Documents> {
    if extensions.is_instance_of::<PyString>() {
        return Err(PyTypeError::new_err(
            "`extensions` is a list of extensions, not one extension; write it as [\"md\"]",
        ));
    }
    if let Some(other) = on_error.as_ref().filter(|other| !other.is_callable()) {
        return Err(PyTypeError::new_err(format!("`on_error` is a function, not {}", kind(other))));
    }
    let extensions: Vec<String> = extensions.try_iter()?.map(|one| one?.extract()).collect::<PyResult<_>>()?;
    let walk: Walk = Box::new(sage_services::documents(&folder, &extensions));
    Ok(Documents { walk: Mutex::new(walk), on_error: on_error.map(Bound::unbind) })
}

/// The text of a file, and what else is known of it.
#[pyclass(frozen, eq, module = "sage.services")]
#[derive(PartialEq)]
pub(crate) struct DocumentText(pub(super) sage_services::DocumentText);

type Parts<'a> = (&'a str, bool, Option<&'a str>, &'a [usize], &'static str, Vec<Row>);

#[pymethods]
impl DocumentText {
    /// For texts that were read by something else than ``read_document``. ``format`` is ``"markdown"``, ``"html"`` or
    /// ``"text"``.
    #[new]
    #[pyo3(
        signature = (text, is_utf8=true, title=None, pages=Vec::new(), format="text", rows=None),
        text_signature = "(text, is_utf8=True, title=None, pages=(), format='text', rows=())"
    )]
    fn new(
        text: String,
        is_utf8: bool,
        title: Option<String>,
        pages: Vec<usize>,
        format: &str,
        rows: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let mut document = sage_services::DocumentText::default();
        document.rows = rows.map_or(Ok(Vec::new()), |rows| self::rows(rows, &text))?;
        document.format = format_of(format)?;
        (document.text, document.is_utf8, document.title, document.pages) = (text, is_utf8, title, pages);
        Ok(Self(document))
    }

    /// The text; U+FFFD stands in the place of what is not UTF-8.
    #[getter]
    fn text(&self) -> &str {
        &self.0.text
    }

    /// Whether all of the file was UTF-8.
    #[getter]
    fn is_utf8(&self) -> bool {
        self.0.is_utf8
    }

    /// The title, where the file states one.
    #[getter]
    fn title(&self) -> Option<&str> {
        self.0.title.as_deref()
    }

    /// Where each page of a PDF file begins: the byte of the text in UTF-8. Empty for a file without pages.
    #[getter]
    fn pages(&self) -> Vec<usize> {
        self.0.pages.clone()
    }

    /// How to read the lines of the text: ``"markdown"``, ``"html"`` or ``"text"``.
    #[getter]
    fn format(&self) -> &'static str {
        match self.0.format {
            Format::Markdown => "markdown",
            Format::Html => "html",
            // There is no other.
            _ => "text",
        }
    }

    /// The rows in order; empty unless the file is a table or JSON lines.
    #[getter]
    fn rows(&self) -> Vec<Row> {
        self.0.rows.iter().cloned().map(Row).collect()
    }

    fn __getnewargs__(&self) -> Parts<'_> {
        (self.text(), self.is_utf8(), self.title(), &self.0.pages, self.format(), self.rows())
    }

    fn __repr__(&self) -> String {
        format!("<DocumentText of {} bytes, {}>", self.0.text.len(), self.format())
    }
}

/// The format that is called so.
pub(super) fn format_of(name: &str) -> PyResult<Format> {
    match name {
        "markdown" => Ok(Format::Markdown),
        "html" => Ok(Format::Html),
        "text" => Ok(Format::Text),
        other => Err(PyValueError::new_err(format!("`format` is markdown, html or text, not {other:?}"))),
    }
}

/// Reads a file as text, by the extension of its name: rows of ``csv`` and ``tsv``, lines of ``jsonl`` and ``ndjson``,
/// the pages of ``pdf``, the paragraphs of ``docx`` as Markdown, and any other file as it is.
///
/// A file may have ``max_bytes``, and may unpack to ``max_text_bytes``; the pages of a PDF file may take ``max_time``
/// seconds. ``text_field`` is the field of a line of JSON that is its text.
///
/// Raises ``OSError``, of the kind that ``open`` raises, when it cannot be read, and ``ValueError`` when it is too
/// long, damaged or encrypted, or holds a zero byte, which no text does.
///
/// >>> import os, tempfile
/// >>> path = os.path.join(tempfile.mkdtemp(), "latin-1.txt")
/// >>> with open(path, "wb") as file:
/// ...     _ = file.write(b"caf\xe9")
/// >>> document = read_document(path)
/// >>> document.text, document.is_utf8
/// ('caf�', False)
#[pyfunction]
#[pyo3(
    signature = (path, *, max_bytes=None, max_text_bytes=None, max_time=None, text_field="text"),
    text_signature = "(path, *, max_bytes=16777216, max_text_bytes=67108864, max_time=60.0, text_field='text')"
)]
pub(crate) fn read_document(
    py: Python<'_>,
    path: PathBuf,
    max_bytes: Option<&Bound<'_, PyAny>>,
    max_text_bytes: Option<&Bound<'_, PyAny>>,
    max_time: Option<Seconds>,
    text_field: &str,
) -> PyResult<DocumentText> {
    let bytes = |name, given: Option<&Bound<'_, PyAny>>| -> PyResult<Option<u64>> {
        Ok(given.map(|given| whole(name, given, 0..=usize::MAX)).transpose()?.map(|bytes| bytes as u64))
    };
    let loader = Loader::default().text_field(text_field);
    let loader = bytes("max_bytes", max_bytes)?.into_iter().fold(loader, Loader::max_bytes);
    let loader = bytes("max_text_bytes", max_text_bytes)?.into_iter().fold(loader, Loader::max_text_bytes);
    let loader = max_time.into_iter().fold(loader, |loader, time| loader.max_time(time.0));
    py.detach(|| loader.read(&path)).map(DocumentText).map_err(raised)
}

fn raised(error: DocumentError) -> PyErr {
    match &error {
        DocumentError::Read { path, source } => os_error(path, source),
        _ => PyValueError::new_err(chain_of(&error)),
    }
}

/// With a number, so that Python makes it a `FileNotFoundError` and the like.
pub(crate) fn os_error(path: &Path, error: &io::Error) -> PyErr {
    // A walk wraps the error of the system.
    let inner = error.get_ref().and_then(|inner| inner.source()).and_then(|inner| inner.downcast_ref::<io::Error>());
    match error.raw_os_error().or_else(|| inner.and_then(io::Error::raw_os_error)) {
        Some(number) => {
            let words = io::Error::from_raw_os_error(number).to_string();
            let words = words.split(" (os error").next().unwrap_or_default().to_owned();
            PyOSError::new_err((number, words, path.as_os_str().to_owned()))
        }
        None => PyOSError::new_err(format!("`{}` cannot be read: {error}", path.display())),
    }
}
