//! The files of one replica, read one after the other: [`Walk`].
//!
//! Invariants: one file is open at a time; files are read in the order of their paths.
//!
//! Knows nothing of formats; a [`Format`] opens the file and reads it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::vec;

use sage::SourceContext;

use crate::bad_line::BadLine;
use crate::encoding::Encoding;
use crate::error::InputError;
use crate::files::Files;
use crate::open::{Input, open};

/// A file of text that was opened, for a format to read.
pub(crate) struct OpenFile {
    pub(crate) path: Arc<Path>,
    pub(crate) input: Input,
    pub(crate) encoding: Encoding,
    pub(crate) max_record_bytes: usize,
}

impl OpenFile {
    /// Opens a file of text.
    pub(crate) fn open(path: &Path, files: &Files) -> Result<Self, InputError> {
        let Files { encoding, max_record_bytes, .. } = *files;
        let input = open(path, encoding).map_err(|source| InputError::Open { path: path.to_owned(), source })?;
        Ok(Self { path: path.into(), input, encoding, max_record_bytes })
    }
}

/// How the bytes of a file become records.
pub(crate) trait Format: Send + 'static {
    /// The records.
    type Item: Send + 'static;
    /// One file, being read.
    type Reader: Send;

    /// Checks the options.
    fn check(&self) -> Result<(), InputError> {
        Ok(())
    }

    /// Opens a file and begins with it. One that cannot be opened, [`InputError::Open`], may be tried again.
    fn begin(&self, path: &Path, files: &Files) -> Result<Self::Reader, InputError>;

    /// The next record, or the text that is not one; `None` at the end of the file.
    fn next(&self, reader: &mut Self::Reader) -> Result<Option<Parsed<Self::Item>>, InputError>;
}

/// A record, or the text that is not one. The text is in a box, so that the enum is small.
pub(crate) type Parsed<T> = Result<T, Box<BadLine>>;

/// The files of one replica, one after the other.
pub(crate) struct Walk<F: Format> {
    files: Files,
    pub(crate) format: F,
    left: vec::IntoIter<PathBuf>,
    reader: Option<F::Reader>,
    /// Why no more can be read. Reading on would give the rest as if nothing were missing.
    stuck: Option<InputError>,
}

impl<F: Format> Walk<F> {
    pub(crate) fn new(files: Files, format: F) -> Self {
        Self { files, format, left: Vec::new().into_iter(), reader: None, stuck: None }
    }

    pub(crate) fn open(&mut self, cx: &SourceContext) -> Result<(), InputError> {
        self.format.check()?;
        let files = self.files.list()?.into_iter();
        self.left = files.skip(cx.replica).step_by(cx.parallelism.max(1)).collect::<Vec<_>>().into_iter();
        Ok(())
    }

    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<Parsed<F::Item>>, InputError> {
        loop {
            if let Some(reader) = &mut self.reader {
                match self.format.next(reader) {
                    Ok(Some(parsed)) => return Ok(Some(parsed)),
                    Ok(None) => self.reader = None,
                    Err(error) => return Err(self.stick(error)),
                }
            }
            if let Some(stuck) = &self.stuck {
                return Err(stuck.again());
            }
            // One that cannot be opened stays the next: it may be there when the source is asked again.
            let Some(path) = self.left.as_slice().first().cloned() else { return Ok(None) };
            match self.format.begin(&path, &self.files) {
                Ok(reader) => self.reader = Some(reader),
                Err(error @ InputError::Open { .. }) => return Err(error),
                Err(error) => return Err(self.stick(error)),
            }
            self.left.next();
        }
    }

    /// Stops reading. The source may be asked again, and must not go on after what it could not read.
    #[cold]
    pub(crate) fn stick(&mut self, error: InputError) -> InputError {
        self.reader = None;
        self.stuck = Some(error.again());
        error
    }

    pub(crate) fn close(&mut self) {
        self.reader = None;
    }
}

impl<F: Format> fmt::Debug for Walk<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Walk").field("files", &self.files).field("left", &self.left.len()).finish_non_exhaustive()
    }
}
